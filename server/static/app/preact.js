// The one place that names the version of the view library.
export * from "../vendor/htm-preact-standalone-3.1.1.js";
