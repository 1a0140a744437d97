// The form that makes a project.
import { post } from "../api.js";
import { plural } from "../format.js";
import { html, useState } from "../preact.js";

/** The names in a text, one a line or separated by commas. */
export function namesIn(text) {
  return text
    .split(/[\n,]/)
    .map((name) => name.trim())
    .filter(Boolean);
}

function problemWith(name, classes) {
  if (!name) return { field: "name", text: "Give the project a name." };
  if (classes.length === 0) return { field: "classes", text: "Name at least one class: what is to be found in the pictures." };
  const twice = classes.find((each, index) => classes.indexOf(each) !== index);
  if (twice) return { field: "classes", text: `The class “${twice}” stands twice in the list.` };
  return null;
}

export function CreateProject({ first = false, onCancel = null }) {
  const [name, setName] = useState("");
  const [text, setText] = useState("");
  const [validation, setValidation] = useState("20");
  const [instructions, setInstructions] = useState("");
  const [problem, setProblem] = useState(null);
  const [busy, setBusy] = useState(false);
  const classes = namesIn(text);

  const submit = async (event) => {
    event.preventDefault();
    const found = problemWith(name.trim(), classes);
    setProblem(found);
    if (found) {
      event.target.elements[found.field].focus();
      return;
    }
    setBusy(true);
    try {
      const project = await post("/projects", {
        name: name.trim(),
        classes,
        validation_images: Number(validation) || 0,
        instructions,
      });
      location.assign(`/app/projects/${project.id}`);
    } catch (error) {
      setProblem({ field: error.code === "name_taken" ? "name" : null, text: error.message });
      setBusy(false);
    }
  };
  const invalid = (field) => (problem?.field === field ? { "aria-invalid": "true", "aria-describedby": "create-problem" } : {});

  return html`
    <form class="stack" onSubmit=${submit} novalidate>
      <div class="field">
        <label for="create-name">Name</label>
        <input id="create-name" name="name" value=${name} maxlength="200" autocomplete="off" autofocus=${first}
          onInput=${(event) => setName(event.target.value)} ...${invalid("name")} />
      </div>
      <div class="field">
        <label for="create-classes">Classes</label>
        <textarea id="create-classes" name="classes" rows="3" spellcheck="false" placeholder="car, person, bicycle"
          onInput=${(event) => setText(event.target.value)} ...${invalid("classes")}></textarea>
        <p class="hint">${
          classes.length
            ? `${plural(classes.length, "class", "classes")}: ${classes.join(" · ")}. More can follow later; none can go.`
            : "What annotators will box: one a line, or separated by commas. More can follow later; none can go."
        }</p>
      </div>
      <div class="field">
        <label for="create-validation">Images to measure on</label>
        <input id="create-validation" name="validation" class="short" type="number" min="0" max="100000" value=${validation}
          onInput=${(event) => setValidation(event.target.value)} />
        <p class="hint">So many are drawn at random in the first cycle, labeled like the rest, and never trained on: they tell how good the model is. 0 if you bring images of the split “val” yourself.</p>
      </div>
      <div class="field">
        <label for="create-instructions">Instructions for annotators <span class="muted">(optional)</span></label>
        <textarea id="create-instructions" name="instructions" rows="2" placeholder="Box every car of which you see more than a quarter."
          onInput=${(event) => setInstructions(event.target.value)}></textarea>
      </div>
      <p id="create-problem" class="error" role="alert">${problem?.text}</p>
      <div class="actions">
        <button class="button primary" type="submit" disabled=${busy}>Create project</button>
        ${onCancel && html`<button class="button" type="button" onClick=${onCancel}>Cancel</button>`}
      </div>
    </form>
  `;
}
