// A training field's value between a text input and JSON. Pure.

/** A value as a person would type it. */
export function sayValue(value) {
  if (Array.isArray(value)) return value.join(", ");
  return value === undefined || value === null ? "" : String(value);
}

/**
 * @param {{name: string, type: string, minimum?: number, maximum?: number}} field of `GET /presets`
 * @param {string} text
 * @returns {{value: any} | {error: string}}
 */
export function parseSetting(field, text) {
  const given = text.trim();
  if (field.type === "bool") return { value: given === "true" };
  if (field.type === "str") return { value: given };
  if (field.type.startsWith("list[")) {
    const inner = { ...field, type: field.type.slice(5, -1) };
    const parts = given.split(/[\s,]+/).filter(Boolean).map((part) => parseSetting(inner, part));
    return parts.find((part) => part.error) ?? { value: parts.map((part) => part.value) };
  }
  const number = Number(given);
  const range = `from ${field.minimum} to ${field.maximum}`;
  if (given === "" || !Number.isFinite(number)) return { error: `${field.name} must be a number ${range}.` };
  if (field.type === "int" && !Number.isInteger(number)) return { error: `${field.name} must be a whole number ${range}.` };
  if (number < field.minimum || number > field.maximum) return { error: `${field.name} must lie ${range}.` };
  return { value: number };
}
