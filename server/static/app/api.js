// The one way to the server: JSON in and out, errors as exceptions, the session.

/** The server refused. `status`, `code` (a stable word), `message` (a sentence), `body`. */
export class ApiError extends Error {
  constructor(status, body) {
    super(sentence(body) ?? `the server answered ${status}`);
    this.name = "ApiError";
    this.status = status;
    this.code = body?.code ?? "error";
    this.body = body;
  }
}

/** No answer came: no network, or no server. The request may or may not have arrived. */
export class NetworkError extends Error {
  constructor(cause) {
    super("the server cannot be reached", { cause });
    this.name = "NetworkError";
  }
}

function sentence(body) {
  const detail = body?.detail;
  if (typeof detail === "string") return detail;
  if (!Array.isArray(detail)) return null;
  return detail.map((each) => `${(each.loc ?? []).slice(1).join(".")}: ${each.msg}`).join("; ");
}

let known = null; // the promise of the session, fetched once
let csrfToken = null;
let firstKey = null; // the promise of it, while and after this page makes it

/**
 * Who is signed in: `{user: {id, name, role, projects}, csrf_token, open}`; `projects` null means
 * all. On an open server that is the local user, an admin who needs no key. A closed one sends
 * strangers to the sign-in page.
 */
export function session() {
  known ??= fetchSession();
  return known;
}

async function fetchSession() {
  try {
    const found = await send("GET", "/session", {});
    csrfToken = found.csrf_token;
    return found;
  } catch (error) {
    known = null;
    if (error.status === 401) signIn();
    throw error;
  }
}

/** Leave for the sign-in page, and come back here afterwards. */
export function signIn() {
  const here = location.pathname + location.search + location.hash;
  if (!location.pathname.startsWith("/app/sign-in")) {
    location.assign(`/app/sign-in?next=${encodeURIComponent(here)}`);
  }
}

/**
 * One request.
 * @param {string} method
 * @param {string} path from the server's root, as the API gives it
 * @param {{query?: object, body?: any, form?: FormData, signal?: AbortSignal,
 *          keepalive?: boolean, stay?: boolean}} [options] absent values of `query` are left out;
 *   `stay` keeps the page on a 401, for callers that hold unsaved work.
 * @returns the answer's JSON; null where it has none
 * @throws {ApiError|NetworkError}
 */
export async function request(method, path, options = {}) {
  if (method !== "GET") await session();
  try {
    return await send(method, path, options);
  } catch (error) {
    if (error.code === "csrf" && (await isRenewed())) return await send(method, path, options);
    if (error.status === 401 && firstKey) {
      // The page closed the server itself: it must not leave before the key was seen.
      await firstKey;
      return send(method, path, options);
    }
    if (error.status === 401 && !options.stay) signIn();
    throw error;
  }
}

/**
 * The session's token is another one: in another tab somebody signed in anew. Gives whether it is
 * the same person; for another one the page begins anew.
 */
async function isRenewed() {
  const before = await session();
  known = null;
  const now = await session();
  if (now.user.name === before.user.name) return now.csrf_token !== before.csrf_token;
  location.reload();
  return false;
}

async function send(method, path, { query, body, form, signal, keepalive }) {
  const headers = { Accept: "application/json" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (method !== "GET" && csrfToken !== null) headers["X-CSRF-Token"] = csrfToken;
  let response;
  let text;
  try {
    response = await fetch(withQuery(path, query), {
      method,
      headers,
      body: form ?? (body === undefined ? undefined : JSON.stringify(body)),
      credentials: "same-origin",
      signal,
      keepalive,
    });
    text = await response.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new NetworkError(error);
  }
  const parsed = parse(text);
  if (!response.ok) throw new ApiError(response.status, parsed);
  return parsed;
}

function parse(text) {
  if (text === "") return null;
  try {
    return JSON.parse(text);
  } catch {
    return null; // not ours: a proxy's page, say; the status tells enough
  }
}

/** A path with a query string; undefined and null are left out, arrays repeat their name. */
export function withQuery(path, query = {}) {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each !== undefined && each !== null) search.append(name, String(each));
    }
  }
  const text = search.toString();
  return text ? `${path}?${text}` : path;
}

export const get = (path, query, options) => request("GET", path, { query, ...options });
export const post = (path, body, options) => request("POST", path, { body, ...options });
export const put = (path, body, options) => request("PUT", path, { body, ...options });
export const patch = (path, body, options) => request("PATCH", path, { body, ...options });
export const del = (path, query, options) => request("DELETE", path, { query, ...options });

/** Every item of a list, page after page. */
export async function* items(path, query = {}) {
  let cursor;
  do {
    const page = await get(path, { limit: 1000, ...query, cursor });
    yield* page.items;
    cursor = page.next_cursor;
  } while (cursor);
}

/** Sign in with a key; `ApiError` 401 if it is not one. */
export async function openSession(key) {
  await send("POST", "/session", { body: { key } });
  known = null;
}

/**
 * Make the first key of an open server, which closes it, and sign in with it. Requests that are
 * refused meanwhile wait and go again.
 */
export function createFirstKey(body) {
  const made = send("POST", "/keys", { body });
  firstKey = made.then((key) => openSession(key.key)).catch(() => {});
  return made.then(
    (key) => firstKey.then(() => key),
    (error) => {
      firstKey = null;
      throw error;
    },
  );
}

/** Sign out, and go to the sign-in page. */
export async function closeSession() {
  await request("DELETE", "/session");
  known = null;
  location.assign("/app/sign-in");
}
