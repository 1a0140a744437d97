// The form that starts a cycle, with what each choice means.
import { get, post } from "../api.js";
import { Dialog } from "../components.js";
import { count, plural } from "../format.js";
import { html, useEffect, useState } from "../preact.js";
import { parseSetting, sayValue } from "./settings_values.js";
import { PRESETS, STRATEGIES } from "./words.js";

const WITH_OPTIONS = ["mi-aod", "entropy"];
// Offered at once; every other one by name.
const COMMON = ["image_long_side", "label_epochs", "rounds", "warm_start"];

/**
 * @param {{project: object, trains: boolean, onClose: () => void, onStart: (cycle: object) => void}}
 *   props `trains`: whether something is labeled that it would train on
 */
export function StartCycle({ project, trains, onClose, onStart }) {
  const defaults = project.cycle_defaults;
  const [presets, setPresets] = useState(null);
  const [budget, setBudget] = useState(String(defaults.budget ?? suggestedBudget(project)));
  const [strategy, setStrategy] = useState(defaults.strategy?.name ?? "mi-aod");
  const [balance, setBalance] = useState(defaults.strategy?.class_balance ?? null);
  const [diversity, setDiversity] = useState(defaults.strategy?.diversity ?? null);
  const [preset, setPreset] = useState(defaults.training?.preset ?? "");
  const [overrides, setOverrides] = useState({}); // name -> text
  const [seed, setSeed] = useState("");
  const [problem, setProblem] = useState(null);
  const [busy, setBusy] = useState(false);
  useEffect(() => {
    get("/presets").then(setPresets, (error) => setProblem(error.message));
  }, []);

  const submit = async (event) => {
    event.preventDefault();
    const wrong = (text, field) => {
      setProblem(text);
      event.target.elements[field]?.focus();
    };
    const wanted = Number(budget);
    if (!Number.isInteger(wanted) || wanted < 1) {
      return wrong("The budget must be a whole number of at least 1: how many images to select.", "budget");
    }
    if (seed !== "" && (!Number.isInteger(Number(seed)) || Number(seed) < 0)) {
      return wrong("The seed must be a whole number of 0 or more.", "seed");
    }
    const training = {};
    if (preset) training.preset = preset;
    for (const [name, text] of Object.entries(overrides)) {
      if (text.trim() === "") continue;
      const field = presets.fields.find((each) => each.name === name);
      const parsed = parseSetting(field, text);
      if (parsed.error) return wrong(parsed.error, `setting-${name}`);
      training[name] = parsed.value;
    }
    const options = WITH_OPTIONS.includes(strategy) ? { class_balance: balance, diversity } : {};
    const body = {
      project: project.id,
      budget: wanted,
      strategy: { name: strategy, ...options },
      ...(Object.keys(training).length > 0 && { training }),
      ...(seed !== "" && { seed: Number(seed) }),
    };
    setBusy(true);
    setProblem(null);
    try {
      onStart(await post("/cycles", body));
    } catch (error) {
      setProblem(error.message);
      setBusy(false);
    }
    return undefined;
  };

  const selectable = project.counts.unlabeled - project.counts.skipped;
  const chosen = presets?.items.find((each) => each.name === (preset || presets.default))?.training;
  return html`
    <${Dialog} title=${trains ? "Start a cycle" : "Start the first cycle"} onClose=${onClose} wide>
      <form class="start-cycle" onSubmit=${submit} novalidate>
        <p class="notice">${
          trains
            ? `It trains on ${plural(project.counts.labeled, "labeled image")}, scores the ${count(selectable)} unlabeled ones, and selects those that your strategy puts first.`
            : `Nothing is labeled with a box yet, so there is nothing to train on: the first cycle draws images at random, within seconds. Label them, and the next cycle trains.`
        }${!trains && project.validation_images > 0 && project.counts.val === 0 ? ` It also draws ${project.validation_images} images to measure on.` : ""}</p>
        <div class="field">
          <label for="budget">Budget</label>
          <input id="budget" name="budget" class="short" type="number" min="1" value=${budget} onInput=${(event) => setBudget(event.target.value)} />
          <p class="hint">How many images to select and hand to your annotators. ${count(selectable)} can be selected.</p>
        </div>
        ${trains &&
        html`<fieldset class="field">
          <legend>Strategy</legend>
          <div class="choices">
            ${Object.entries(STRATEGIES).map(
              ([key, { name, text }]) => html`<label class="choice" key=${key}>
                <input type="radio" name="strategy" value=${key} checked=${strategy === key} onChange=${() => setStrategy(key)} />
                <span><b>${name}</b><span class="muted small">${text}</span></span>
              </label>`,
            )}
          </div>
          ${WITH_OPTIONS.includes(strategy) &&
          html`<div class="options">
            <${Option} name="Rare classes first" text="Moves pictures up that seem to show classes with few labels. 1 is a good start." value=${balance} start=${1} onChange=${setBalance} />
            <${Option} name="Diversity" text="Spreads the selection over unlike pictures, out of so many times the budget. 4 is a good start." value=${diversity} start=${4} onChange=${setDiversity} />
          </div>`}
        </fieldset>`}
        ${trains &&
        html`<div class="field">
          <label for="preset">Training preset</label>
          <select id="preset" value=${preset} onChange=${(event) => setPreset(event.target.value)}>
            <option value="">${presets ? `Default of the ${defaults.training?.preset ? "project" : "server"}: ${defaults.training?.preset ?? presets.default}` : "Default"}</option>
            ${presets?.items.map((each) => html`<option value=${each.name}>${each.name}</option>`)}
          </select>
          <p class="hint">${PRESETS[preset || presets?.default] ?? "Every field of it can be overridden below."}</p>
        </div>`}
        ${presets && html`<${Advanced} trains=${trains} fields=${presets.fields} chosen=${chosen} overrides=${overrides} onOverrides=${setOverrides} seed=${seed} onSeed=${setSeed} />`}
        <p class="error" role="alert">${problem}</p>
        <div class="actions form-end">
          <button type="submit" class="button primary" disabled=${busy}>Start ${trains ? "cycle" : "first cycle"}</button>
          <button type="button" class="button" onClick=${onClose}>Cancel</button>
        </div>
      </form>
    <//>
  `;
}

/** A tenth of the pool, but neither a handful nor a month of work. */
function suggestedBudget({ counts }) {
  return Math.min(50, Math.max(1, counts.unlabeled - counts.skipped), Math.max(10, Math.round(counts.unlabeled / 10)));
}

function Option({ name, text, value, start, onChange }) {
  return html`<div class="option">
    <label class="check"><input type="checkbox" checked=${value !== null} onChange=${(event) => onChange(event.target.checked ? start : null)} /> ${name}</label>
    <input type="number" class="short" step="any" min="0" aria-label=${name} disabled=${value === null} value=${value ?? start} onInput=${(event) => onChange(Number(event.target.value))} />
    <p class="hint">${text}</p>
  </div>`;
}

function Advanced({ trains, fields, chosen, overrides, onOverrides, seed, onSeed }) {
  const others = fields.filter((field) => !COMMON.includes(field.name) && !(field.name in overrides));
  const shown = [...COMMON, ...Object.keys(overrides).filter((name) => !COMMON.includes(name))];
  const set = (name, text) => onOverrides({ ...overrides, [name]: text });
  return html`
    <details class="advanced">
      <summary>${trains ? "Settings and seed" : "Seed"}</summary>
      <div class="advanced-body">
        ${trains &&
        shown.map((name) => {
          const field = fields.find((each) => each.name === name);
          return field && html`<${Setting} key=${name} field=${field} standard=${chosen?.[name]} text=${overrides[name] ?? ""} onInput=${(text) => set(name, text)} />`;
        })}
        ${trains &&
        html`<div class="field">
          <label for="other-setting">Another setting</label>
          <select id="other-setting" value="" onChange=${(event) => { if (event.target.value) set(event.target.value, ""); }}>
            <option value="">Choose one of ${others.length} …</option>
            ${others.map((field) => html`<option value=${field.name}>${field.name}</option>`)}
          </select>
        </div>`}
        <div class="field">
          <label for="seed">Seed</label>
          <input id="seed" name="seed" class="short" type="number" min="0" placeholder="drawn" value=${seed} onInput=${(event) => onSeed(event.target.value)} />
          <p class="hint">Of every random choice: the same seed gives the same result on one kind of CPU.</p>
        </div>
      </div>
    </details>
  `;
}

function Setting({ field, standard, text, onInput }) {
  const id = `setting-${field.name}`;
  const choices = field.type === "bool" ? ["true", "false"] : field.choices;
  return html`<div class="field">
    <label for=${id}><code>${field.name}</code></label>
    ${choices
      ? html`<select id=${id} name=${id} value=${text} onChange=${(event) => onInput(event.target.value)}>
          <option value="">${sayValue(standard)} (preset)</option>
          ${choices.map((each) => html`<option value=${String(each)}>${String(each)}</option>`)}
        </select>`
      : html`<input id=${id} name=${id} autocomplete="off" inputmode=${field.type === "str" ? "text" : "decimal"} placeholder=${sayValue(standard)} value=${text} onInput=${(event) => onInput(event.target.value)} />`}
    <p class="hint">${field.description}</p>
  </div>`;
}
