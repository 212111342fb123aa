# A worker: vLLM with Trivium's plugins. What it serves, its command says:
# `worker meta`, or `worker expert NAME`.
#   docker build --file deploy/images/worker.Dockerfile --tag trivium/worker:0.1.0 .
#   docker build --build-arg ENGINE=cpu … --tag trivium/worker:0.1.0-cpu .
# For a Ray cluster (deploy/ray): --build-arg ENGINE=cpu --build-arg EXTRAS=otel,ray,postgres …
#   --tag trivium/ray:0.1.0-cpu .

ARG ENGINE=gpu

FROM vllm/vllm-openai:v0.32.0 AS gpu
ARG EXTRAS=otel
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY router router
COPY experts experts
COPY server server
# The image's own vLLM satisfies the pin of the extra; uv, which is there, adds what it lacks.
RUN uv pip install --system --no-cache ".[gpu,${EXTRAS}]"

FROM python:3.11-slim-bookworm AS cpu
ARG EXTRAS=otel
# gcc compiles the kernels of ternary layers; libgomp and libnuma are what torch and vLLM load;
# KubeRay's probes call wget.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev libgomp1 libnuma1 wget \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY router router
COPY experts experts
COPY server server
# uv finds torch's CPU builds by itself. Text needs no torchvision, torchaudio or torchcodec, and
# one that was built for another torch breaks transformers.
RUN python -m pip install --no-cache-dir "uv==0.13.*" \
    && uv pip install --system --no-cache --torch-backend cpu ".[cpu,${EXTRAS}]" \
    && uv pip uninstall --system torchvision torchaudio torchcodec

# hadolint ignore=DL3006
FROM ${ENGINE} AS worker
WORKDIR /var/cache/trivium
# Everything that is written is below the cache (checkpoints, what is compiled) or in /tmp, whence
# some engines let no library be loaded.
RUN useradd --uid 10001 --no-create-home --home-dir /var/cache/trivium trivium \
    && install --directory --owner=10001 /var/cache/trivium
ENV HOME=/var/cache/trivium \
    PYTHONUNBUFFERED=1 \
    TRIVIUM_HOST=0.0.0.0 \
    TRIVIUM_PORT=8000 \
    TRIVIUM_STATE_DIR=/var/cache/trivium/state \
    TRIVIUM_CACHE_DIR=/var/cache/trivium \
    TORCHINDUCTOR_CACHE_DIR=/var/cache/trivium/inductor \
    TRITON_CACHE_DIR=/var/cache/trivium/triton
VOLUME ["/var/cache/trivium"]
EXPOSE 8000
USER 10001:10001
# Loading a large checkpoint takes its time.
HEALTHCHECK --interval=10s --timeout=5s --start-period=15m --retries=3 \
    CMD ["python3", "-c", "import urllib.request as web; web.urlopen('http://127.0.0.1:8000/health')"]
ENTRYPOINT ["trivium"]
CMD ["worker", "meta"]
