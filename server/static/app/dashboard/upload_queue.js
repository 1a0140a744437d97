// Files on their way to the server: in batches, two at a time, each file answered on its own.
import { request } from "../api.js";

const BATCH_FILES = 100;
const BATCH_BYTES = 24_000_000;
const AT_ONCE = 2;

/** Split files into batches that a request may hold. Pure. */
export function batchesOf(files, most = BATCH_FILES, bytes = BATCH_BYTES) {
  const batches = [];
  let batch = [];
  let size = 0;
  for (const entry of files) {
    if (batch.length > 0 && (batch.length >= most || size + entry.file.size > bytes)) {
      batches.push(batch);
      [batch, size] = [[], 0];
    }
    batch.push(entry);
    size += entry.file.size;
  }
  if (batch.length > 0) batches.push(batch);
  return batches;
}

/** Whether a file is an archive that an import takes. */
export const isArchive = (name) => /\.(zip|tar|tgz|tar\.gz)$/i.test(name);

/**
 * Send files into a split of a project.
 * @param {{file: File, name: string}[]} files
 * @param {{project: string, split: string, signal: AbortSignal,
 *   onResults: (results: {name: string, status: string, reason: string|null, entry: object}[]) => void}} options
 *   `status` is the API's, or `failed` where no answer came for the file; it can be sent again.
 */
export async function uploadAll(files, { project, split, signal, onResults }) {
  const waiting = batchesOf(files);
  const sendNext = async () => {
    while (waiting.length > 0 && !signal.aborted) {
      const batch = waiting.shift();
      const results = await send(batch, project, split, signal);
      onResults(results);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, sendNext));
  if (signal.aborted) onResults(waiting.flat().map((entry) => failed(entry, "not sent: stopped before")));
}

async function send(batch, project, split, signal) {
  const form = new FormData();
  form.append("project", project);
  form.append("split", split);
  for (const { file, name } of batch) form.append("files", file, name);
  try {
    const answer = await request("POST", "/images", { form, signal });
    return answer.items.map((item, index) => ({ ...item, entry: batch[index] }));
  } catch (error) {
    const reason = error.name === "AbortError" ? "not sent: stopped" : error.message;
    return batch.map((entry) => failed(entry, reason));
  }
}

const failed = (entry, reason) => ({ name: entry.name, status: "failed", reason, entry });

/** The files of a drop, those in folders included, with their relative paths. */
export async function filesOf(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (entries.length === 0) return [...transfer.files].map((file) => ({ file, name: file.name }));
  const found = [];
  for (const entry of entries) await collect(entry, "", found);
  return found;
}

async function collect(entry, folder, found) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    if (!file.name.startsWith(".")) found.push({ file, name: folder + file.name });
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    // A reader gives a hundred at a time, and none at the end.
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (some.length === 0) return;
    for (const each of some) await collect(each, `${folder}${entry.name}/`, found);
  }
}
