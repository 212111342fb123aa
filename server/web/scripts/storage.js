// The browser's storages, or, where they are blocked, memory that ends with the page.

class Memory {
  getItem(key) {
    return this[key] ?? null;
  }

  setItem(key, value) {
    this[key] = String(value);
  }

  removeItem(key) {
    delete this[key];
  }
}

function storage(name) {
  try {
    globalThis[name].getItem("");
    return globalThis[name];
  } catch {
    return new Memory();
  }
}

export const local = storage("localStorage");
export const session = storage("sessionStorage");

/** Whether what is stored outlives the page. */
export const lasting = !(local instanceof Memory);
