// Where images come from in a review: labeled ones, those first that deserve a second look.
import { get } from "../api.js";
import { Empty } from "../components.js";
import { html } from "../preact.js";

/** The most that one review goes through; the next one begins with what is worst then. */
const MOST = 500;

export class Review extends EventTarget {
  /** @param {string} by "disagreement" of label and model, or "uncertainty" of the model */
  constructor(project, by) {
    super();
    this.project = project;
    this.by = by === "uncertainty" ? "uncertainty" : "disagreement";
    this.number = null;
  }

  /** All images of the review, at the first call; then none. */
  async more() {
    if (this.number !== null) return [];
    const found = await this.#found();
    this.number = found.length;
    return found.map(({ image, disagreement }, index) => ({
      image: { id: image.id, name: image.name, width: image.width, height: image.height },
      query: null,
      token: null,
      version: image.annotation_version,
      predictions: null,
      state: "saved",
      place: index + 1,
      of: found.length,
      remark: this.#remark(image, disagreement),
    }));
  }

  async #found() {
    if (this.by === "disagreement") {
      return (await get(`/projects/${this.project}/review`, { limit: MOST })).items;
    }
    const query = { project: this.project, state: "labeled", sort: "uncertainty", limit: MOST };
    return (await get("/images", query)).items.map((image) => ({ image, disagreement: null }));
  }

  #remark(image, disagreement) {
    if (this.by === "uncertainty") {
      return image.uncertainty === null ? "no uncertainty known" : `uncertainty ${image.uncertainty.toPrecision(3)}`;
    }
    return disagreement === 0 ? "label and model agree" : `disagreement ${disagreement.toFixed(1)}`;
  }

  async beat() {}

  release() {}

  async standing() {
    return { total: 0, done: 0, number: this.number };
  }

  describe({ number }, { project, back }) {
    const links = html`
      ${back}
      <a class="button" href=${`/app/projects/${project.id}/annotate`}>Label new images</a>
      <a class="button primary" href=${`/app/projects/${project.id}`}>To the overview</a>
    `;
    if (number === 0) {
      return html`<${Empty} title="Nothing to review yet" actions=${links}>
        <p>A review compares labels with what the newest model sees. Label some images and let a cycle train first.</p>
      <//>`;
    }
    return html`<${Empty} title="Reviewed" actions=${links}>
      <p>These were the labeled images that deserved a second look most. After the next cycle the model sees them anew.</p>
    <//>`;
  }
}
