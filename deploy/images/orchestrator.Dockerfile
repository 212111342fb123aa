# The orchestrator: no torch, no vLLM; the workers run elsewhere.
#   docker build --file deploy/images/orchestrator.Dockerfile --tag trivium/orchestrator:0.1.0 .

FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY router router
COPY experts experts
COPY server server
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .
RUN python -m venv /opt/trivium \
    && /opt/trivium/bin/pip install --no-cache-dir "$(echo /wheels/trivium-*.whl)[otel,postgres]"

FROM python:3.11-slim-bookworm
# State (audit log; the registry, where it is no PostgreSQL) and cache (encoded queries) are all
# that is written besides /tmp: the rest of the file system may be read-only.
RUN useradd --uid 10001 --no-create-home --home-dir /var/lib/trivium trivium \
    && install --directory --owner=10001 /var/lib/trivium /var/cache/trivium
COPY --from=build /opt/trivium /opt/trivium
ENV PATH=/opt/trivium/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    TRIVIUM_HOST=0.0.0.0 \
    TRIVIUM_PORT=8000 \
    TRIVIUM_STATE_DIR=/var/lib/trivium \
    TRIVIUM_CACHE_DIR=/var/cache/trivium \
    TRIVIUM_STARTER_EXPERTS=false
VOLUME ["/var/lib/trivium", "/var/cache/trivium"]
EXPOSE 8000
USER 10001:10001
HEALTHCHECK --interval=10s --timeout=5s --start-period=15m --retries=3 \
    CMD ["python", "-c", "import urllib.request as web; web.urlopen('http://127.0.0.1:8000/health')"]
ENTRYPOINT ["trivium"]
CMD ["serve"]
