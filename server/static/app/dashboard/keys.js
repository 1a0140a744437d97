// Keys and members: who may do what. For admins.
import { createFirstKey, del, get, post } from "../api.js";
import { Dialog } from "../components.js";
import { ago } from "../format.js";
import { html, useEffect, useState } from "../preact.js";
import { toast } from "../toast.js";

const ROLES = {
  viewer: "reads",
  annotator: "also claims and annotates",
  engineer: "also starts cycles, uploads, and takes data and models out",
  admin: "also manages keys, in all projects",
};

export function Keys({ project, session }) {
  const [keys, setKeys] = useState(null);
  const [making, setMaking] = useState(false);
  const [made, setMade] = useState(null);
  const load = () =>
    get("/keys", { limit: 1000 }).then(
      (page) => setKeys(page.items),
      (error) => setKeys({ error: error.message }),
    );
  useEffect(() => {
    load();
  }, []);
  if (keys === null) return null;
  const revoke = async (key) => {
    try {
      await del(`/keys/${key.id}`);
      await load();
    } catch (error) {
      toast(error.message, "error");
    }
  };
  const welcome = async (key) => {
    setMaking(false);
    setMade(key);
    await load();
  };
  const leave = () => {
    if (session.open) location.reload(); // as the admin that one has become
    setMade(null);
  };
  const here = Array.isArray(keys)
    ? keys.filter((key) => !key.revoked_at && (key.projects === null || key.projects.includes(project.id)))
    : [];
  return html`
    <section class="card stack" aria-labelledby="keys-title">
      <div class="row"><h2 id="keys-title">Members and keys</h2><button type="button" class="button end" onClick=${() => setMaking(true)}>New key</button></div>
      ${keys.error && html`<p class="error">${keys.error}</p>`}
      ${here.length === 0
        ? html`<p class="muted">${session.open ? "This server is open to everybody on its machine. The first key closes it: from then on all sign in with one." : "No key opens this project."} A key is for one person or program; its name stands with all they do.</p>`
        : html`<div class="scroll-x" tabindex="0" role="region" aria-label="Table of keys"><table><thead><tr><th scope="col">Name</th><th scope="col">Role</th><th scope="col">Key</th><th scope="col">Used</th><th scope="col"><span class="visually-hidden">Revoke</span></th></tr></thead><tbody>
            ${here.map((key) => html`<tr key=${key.id}><th scope="row">${key.name}</th><td>${key.role}${key.projects === null ? html` <span class="muted small">all projects</span>` : ""}</td><td><code>${key.prefix}…</code></td><td class="muted">${key.last_used_at ? ago(key.last_used_at) : "never"}</td><td class="number"><button type="button" class="button quiet danger" onClick=${() => revoke(key)}>Revoke<span class="visually-hidden"> ${key.name}</span></button></td></tr>`)}
          </tbody></table></div>`}
      ${making && html`<${NewKey} project=${project} first=${session.open} onClose=${() => setMaking(false)} onMade=${welcome} />`}
      ${made && html`<${ShowKey} made=${made} first=${session.open} onClose=${leave} />`}
    </section>
  `;
}

/** `first`: it is the server's first key, so an admin's. */
function NewKey({ project, first, onClose, onMade }) {
  const [name, setName] = useState("");
  const [role, setRole] = useState(first ? "admin" : "annotator");
  const [all, setAll] = useState(false);
  const [problem, setProblem] = useState(null);
  const everywhere = all || role === "admin";
  const submit = async (event) => {
    event.preventDefault();
    if (!name.trim()) return setProblem("Say for whom or what the key is.");
    try {
      const scope = everywhere ? { all_projects: true } : { projects: [project.id] };
      const asked = { name: name.trim(), role, ...scope };
      onMade(await (first ? createFirstKey(asked) : post("/keys", asked)));
    } catch (error) {
      setProblem(error.message);
    }
    return undefined;
  };
  return html`<${Dialog} title="New key" onClose=${onClose}>
    <form class="stack" onSubmit=${submit} novalidate>
      ${first && html`<p class="notice">The first key is yours, as admin: you make the others. It closes the server, and signs this browser in.</p>`}
      <div class="field"><label for="key-name">For</label><input id="key-name" autocomplete="off" value=${name} placeholder="ana" onInput=${(event) => setName(event.target.value)} /></div>
      <fieldset class="field"><legend>Role</legend>
        ${Object.entries(ROLES).map(([key, text]) => html`<label class="check"><input type="radio" name="role" checked=${role === key} disabled=${first && key !== "admin"} onChange=${() => setRole(key)} /> <b>${key}</b> <span class="muted">${text}</span></label>`)}
      </fieldset>
      <label class="check"><input type="checkbox" checked=${everywhere} disabled=${role === "admin"} onChange=${(event) => setAll(event.target.checked)} /> All projects, not only this one</label>
      <p class="error" role="alert">${problem}</p>
      <div class="actions"><button type="submit" class="button primary">Make key</button><button type="button" class="button" onClick=${onClose}>Cancel</button></div>
    </form>
  <//>`;
}

function ShowKey({ made, first, onClose }) {
  return html`<${Dialog} title=${`Key of ${made.name}`} onClose=${onClose}>
    <p>This is the only time that it is shown. Copy it now, and ${first ? "keep it: without it nobody can make another" : "hand it over safely"}.</p>
    <input class="key-text" readonly value=${made.key} aria-label="The key" onFocus=${(event) => event.target.select()} />
    <div class="actions"><button type="button" class="button primary" onClick=${() => navigator.clipboard?.writeText(made.key).then(() => toast("Copied", "success"), () => toast("Select the key and copy it by hand", "error"))}>Copy</button><button type="button" class="button" onClick=${onClose}>Done</button></div>
  <//>`;
}
