// What a visit remembers besides the boxes: the images on the desk, and the annotator's settings.

/** Keep the desk of this tab over a reload. */
export function keepDesk(key, items, index) {
  const kept = items.map(({ preparing: _, ...item }) => item);
  try {
    sessionStorage.setItem(key, JSON.stringify({ items: kept, index }));
  } catch {
    // Full: after a reload the desk begins with the drafts and the next claim instead.
  }
}

/** What was on the desk of this tab: {items, index}. */
export function leftOnDesk(key) {
  const text = sessionStorage.getItem(key);
  return text ? JSON.parse(text) : { items: [], index: 0 };
}

const lateKey = (key) => `${key}:late`;

/** Keep a draft that IndexedDB has not got yet while the page goes, which it does not wait for. */
export function keepLateDraft(key, draft) {
  try {
    localStorage.setItem(lateKey(key), JSON.stringify(draft));
  } catch {
    // Full: the last change may be lost, as it was when nothing was tried.
  }
}

export const dropLateDraft = (key) => localStorage.removeItem(lateKey(key));

/** The draft that was late when the page went last, or null. */
export const lateDraft = (key) => JSON.parse(localStorage.getItem(lateKey(key)));

const settingsKey = (project) => `miaod-annotate-settings:${project.id}`;

/** The settings of a project in this browser: {className, threshold, suggestionsShown}. */
export function settingsOf(project) {
  const defaults = { className: project.classes[0], threshold: 0.5, suggestionsShown: true };
  const settings = { ...defaults, ...JSON.parse(localStorage.getItem(settingsKey(project)) ?? "{}") };
  if (!project.classes.includes(settings.className)) settings.className = project.classes[0];
  return settings;
}

export const keepSettings = (project, settings) =>
  localStorage.setItem(settingsKey(project), JSON.stringify(settings));
