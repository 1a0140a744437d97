// What is kept in this browser until the server has it: a draft of every image that was changed,
// and the saves that were not answered yet. IndexedDB, one database per server (its origin).

const NAME = "miaod-annotate";

const done = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

const finished = (transaction) =>
  new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(transaction.error);
  });

/**
 * A draft: {user, project, image (its id), item, version, history, seconds}; `version` is the one
 * that it is based on. An entry of the outbox: see outbox.js; `key` is given by the database.
 */
export class Drafts {
  /** @throws {Error} if the browser keeps nothing (storage forbidden, or full) */
  static async open() {
    if (!("indexedDB" in globalThis)) throw new Error("this browser has no IndexedDB");
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => {
      const drafts = request.result.createObjectStore("drafts", { keyPath: ["user", "image"] });
      drafts.createIndex("project", ["user", "project"]);
      const outbox = request.result.createObjectStore("outbox", { keyPath: "key", autoIncrement: true });
      outbox.createIndex("user", "user");
    };
    return new Drafts(await done(request));
  }

  constructor(database) {
    this.database = database;
  }

  /** The draft of an image, or undefined. */
  get(user, image) {
    return done(this.#store("drafts").get([user, image]));
  }

  /** All drafts of a project. */
  ofProject(user, project) {
    return done(this.#store("drafts").index("project").getAll([user, project]));
  }

  /** Keep a draft in place of the one that is there; resolves when it outlives the page. */
  async keep(draft) {
    const transaction = this.database.transaction("drafts", "readwrite");
    await Promise.all([done(transaction.objectStore("drafts").put(draft)), finished(transaction)]);
  }

  /** Forget a draft. */
  drop(user, image) {
    return done(this.#store("drafts", "readwrite").delete([user, image]));
  }

  /** A draft based on version `from` is based on `to` from now on. */
  async rebase(user, image, from, to) {
    const draft = await this.get(user, image);
    if (draft?.version === from) await this.keep({ ...draft, version: to });
  }

  /** Put an entry into the outbox, in place of the draft that it was made from; gives its key. */
  async queue(entry) {
    // Strict: what an annotator was told is kept survives a power cut.
    const transaction = this.database.transaction(["drafts", "outbox"], "readwrite", { durability: "strict" });
    const key = done(transaction.objectStore("outbox").add(entry));
    transaction.objectStore("drafts").delete([entry.user, entry.image.id]);
    await finished(transaction);
    return key;
  }

  /** The entries of the outbox, oldest first. */
  entries(user) {
    return done(this.#store("outbox").index("user").getAll(user));
  }

  /** Whether an entry is still there. */
  async hasEntry(key) {
    return (await done(this.#store("outbox").count(key))) > 0;
  }

  /** Note what became of an entry. */
  change(entry) {
    return done(this.#store("outbox", "readwrite").put(entry));
  }

  /** The server has it, or nobody wants it any more. */
  remove(key) {
    return done(this.#store("outbox", "readwrite").delete(key));
  }

  #store(name, mode = "readonly") {
    return this.database.transaction(name, mode).objectStore(name);
  }
}
