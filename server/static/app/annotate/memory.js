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
