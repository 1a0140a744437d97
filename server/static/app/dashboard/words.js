// What the words of the API mean, in sentences for people.

export const STRATEGIES = {
  "mi-aod": {
    name: "MI-AOD",
    text: "Images on whose objects the model's two classifiers disagree most. The default, and what this service is for.",
  },
  entropy: {
    name: "Entropy",
    text: "Images on which the classifier itself is least sure.",
  },
  "core-set": {
    name: "Core-set",
    text: "Images unlike those that are labeled already, whatever the model thinks of them.",
  },
  random: {
    name: "Random",
    text: "A blind draw: the honest baseline to compare the others with.",
  },
};

/** "MI-AOD, diversity 4" for a cycle; an initial one selects at random whatever was asked. */
export function strategyOf(cycle) {
  if (cycle.kind === "initial") return "Random (initial)";
  const { name, ...options } = cycle.strategy;
  const extras = Object.entries(options)
    .filter(([, value]) => value !== null && value !== undefined)
    .map(([option, value]) => `${option.replace("_", " ")} ${value}`);
  return [STRATEGIES[name]?.name ?? name, ...extras].join(", ");
}

export const PRESETS = {
  cpu: "Small network and pictures: minutes on two cores, no download.",
  default: "ResNet-50 for one GPU.",
  "paper-voc": "The paper's settings for PASCAL VOC, for a GPU.",
  "paper-coco": "The paper's settings for COCO, for a GPU.",
  "paper-voc-ssd": "The paper's second detector, SSD300, for a GPU.",
};

/** Why a query was selected, in a sentence. */
export function whyOf(query, total) {
  const place = `Rank ${query.rank} of ${total}`;
  switch (query.reason) {
    case "uncertainty":
      return `${place}: the model's two classifiers disagree on objects in this picture more than on those of any picture ranked below. The heat map shows where.`;
    case "entropy":
      return `${place}: the classifier is less sure here than on any picture ranked below.`;
    case "class-balance":
      return `${place}: an uncertain picture that seems to show classes with few labels so far.`;
    case "diversity":
      return `${place}: an uncertain picture that shows something else than those ranked above it.`;
    case "core-set":
      return `${place}: unlike everything that was labeled before.`;
    case "random":
      return `${place}: drawn at random, as the first images always are, or as the strategy asked.`;
    case "validation":
      return `${place}: drawn at random to measure on. It is never trained on.`;
    default:
      return `${place}: ${query.reason}.`;
  }
}

export const STATES = {
  queued: "Queued",
  running: "Running",
  succeeded: "Succeeded",
  failed: "Failed",
  cancelled: "Cancelled",
  open: "To label",
  claimed: "Being labeled",
  labeled: "Labeled",
  skipped: "Skipped",
  withdrawn: "Withdrawn",
  unlabeled: "Unlabeled",
};

const KINDS = {
  running: "info",
  queued: "",
  succeeded: "good",
  labeled: "good",
  failed: "bad",
  cancelled: "warn",
  claimed: "warn",
  skipped: "warn",
};

/** The class of a badge for a state; the word stands beside the colour. */
export const badgeOf = (state) => `badge ${KINDS[state] ?? ""}`;

const LOSSES = {
  total: "total",
  l_det_cls: "classes of boxes",
  l_det_loc: "places of boxes",
  l_imgcls: "classes of images",
  l_wave_dis: "discrepancy",
  l_wave_dis_minus: "discrepancy, to be raised",
};

/** What a loss of the worker measures, in words. */
export const lossName = (name) => LOSSES[name] ?? name.replace(/^l_/, "").replaceAll("_", " ");

/** An uncertainty: what differs between two of them is in the leading digits. */
export function uncertainty(value) {
  if (value === null || value === undefined) return "–";
  return value !== 0 && Math.abs(value) < 0.001 ? value.toExponential(2) : String(Number(value.toPrecision(3)));
}

/** 0.4231 → "0.423"; nothing known → "–" */
export const score = (value, digits = 3) =>
  value === null || value === undefined ? "–" : value.toFixed(digits);
