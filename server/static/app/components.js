// Components that several pages share.
import { html, useEffect, useRef } from "./preact.js";

/**
 * A modal dialog: focus stays inside, Esc closes it, focus returns to where it was.
 * @param {{title: string, onClose: () => void, children: any, wide?: boolean}} props
 */
export function Dialog({ title, onClose, children, wide = false }) {
  const dialog = useRef(null);
  useEffect(() => {
    const before = document.activeElement;
    dialog.current.showModal();
    return () => before?.focus?.();
  }, []);
  return html`
    <dialog
      ref=${dialog}
      class=${wide ? "dialog wide" : "dialog"}
      aria-label=${title}
      onCancel=${(event) => {
        event.preventDefault();
        onClose();
      }}
    >
      <div class="dialog-head">
        <h2>${title}</h2>
        <button type="button" class="icon-button" aria-label="Close" onClick=${onClose}>×</button>
      </div>
      <div class="dialog-body">${children}</div>
    </dialog>
  `;
}

/**
 * What a page says when there is nothing to show: why, and what to do next.
 * @param {{title: string, children: any, actions?: any}} props
 */
export function Empty({ title, children, actions }) {
  return html`
    <div class="empty">
      <h1>${title}</h1>
      ${children}
      ${actions && html`<div class="actions">${actions}</div>`}
    </div>
  `;
}

/** A progress bar; `value` from 0 to 1. */
export function Progress({ value, label }) {
  return html`<progress class="progress" max="1" value=${value} aria-label=${label}></progress>`;
}

/** A key of the keyboard. */
export function Key({ children }) {
  return html`<kbd>${children}</kbd>`;
}
