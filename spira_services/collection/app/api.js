/* Calls of the API: of the collection, and of the models that are asked. */

const ROOT = new URL("v1/", document.baseURI);
const INFERENCES = "/v1/inferences";
const SECONDS = 60; // after which a call is given up; a part of a file takes a second on a slow line

/** An answer that is no success.  `status` is 0 where the server was not reached. */
export class Failure extends Error {
  constructor(status, body, retryAfterSeconds = null) {
    super(`${status} ${body.error ?? ""}`);
    this.status = status;
    this.code = body.error ?? "";
    this.body = body;
    this.retryAfterSeconds = retryAfterSeconds;
  }

  /** Whether the same call can succeed later. */
  get passes() {
    const away = this.status === 0 || this.status === 408 || this.status === 429;
    return away || this.status >= 500 || this.code === "busy";
  }
}

/** Call `path`; return the answer, whatever its status.  Throws `Failure` where none came. */
async function call(method, path, { key, headers = {}, body } = {}) {
  const authorization = key ? { Authorization: `Bearer ${key}` } : {};
  const signal = AbortSignal.timeout(SECONDS * 1000);
  try {
    return await fetch(new URL(path, ROOT), {
      method,
      body,
      signal,
      cache: "no-store",
      credentials: "omit",
      headers: { ...authorization, ...headers },
    });
  } catch {
    throw new Failure(0, { error: "no_network" });
  }
}

async function content(response) {
  const body = await response.json().catch(() => ({}));
  if (response.ok) return body;
  const seconds = Number(response.headers.get("Retry-After"));
  throw new Failure(response.status, body, seconds > 0 ? seconds : null);
}

const json = (body) => ({ body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });

export const enrol = async (code, model, os) => content(await call("POST", "devices", json({ code, model, os })));

export const form = async (key) => content(await call("GET", "form", { key }));

/** How much of a blob the server has. */
export async function offsetOf(key, sha256) {
  const response = await call("HEAD", `blobs/${sha256}`, { key });
  if (!response.ok) await content(response);
  return {
    offset: Number(response.headers.get("Upload-Offset") ?? 0),
    complete: response.headers.get("Upload-Complete") === "?1",
  };
}

export async function sendPart(key, sha256, offset, length, body) {
  const headers = {
    "Content-Type": "application/octet-stream",
    "Upload-Offset": String(offset),
    "Upload-Length": String(length),
  };
  return content(await call("PUT", `blobs/${sha256}`, { key, headers, body }));
}

export const sendSession = async (key, id, manifest) =>
  content(await call("PUT", `sessions/${id}`, { key, ...json(manifest) }));

export const receipts = async (key) => content(await call("GET", "sessions", { key }));

export const giveConsent = async (key, id, consent) =>
  content(await call("POST", `sessions/${id}/consent`, { key, ...json(consent) }));

/** Ask a model about a recording that was sent; `id` is the key of this request. */
export async function ask(key, id, request) {
  const { body, headers } = json(request);
  return content(await call("POST", INFERENCES, { key, body, headers: { ...headers, "Idempotency-Key": id } }));
}

export const inference = async (key, id) => content(await call("GET", `${INFERENCES}/${id}`, { key }));

/** The newest inferences of this phone. */
export const inferences = async (key) => content(await call("GET", `${INFERENCES}?limit=100`, { key }));

export const act = async (key, id, action) =>
  content(await call("POST", `${INFERENCES}/${id}/actions`, { key, ...json({ action }) }));

export const deleteInference = async (key, id) => content(await call("DELETE", `${INFERENCES}/${id}`, { key }));

export const withdraw = async (key, id) => content(await call("POST", `sessions/${id}/withdraw`, { key }));
