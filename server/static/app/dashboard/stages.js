// What a cycle goes through, as a line, and where on it a cycle is. Pure.

const TRAINED = [
  ["start", "Prepare"],
  ["train", "Train"],
  ["evaluate", "Evaluate"],
  ["score", "Score the pool"],
  ["select", "Select"],
  ["store", "Store"],
];
const INITIAL = [
  ["start", "Prepare"],
  ["select", "Select at random"],
];

/** `[{name, state: "done"|"now"|"todo"}]` for a cycle of the API. */
export function stagesOf(cycle) {
  const line = cycle.kind === "initial" ? INITIAL : TRAINED;
  const at = cycle.state === "queued" ? -1 : line.findIndex(([key]) => key === cycle.stage);
  return line.map(([key, name], index) => ({
    key,
    name,
    state: cycle.state === "succeeded" || index < at ? "done" : index === at ? "now" : "todo",
  }));
}

/** The same for the stages inside the training, as the worker names them; none outside of it. */
export function trainingStagesOf(cycle) {
  if (cycle.stage !== "train" || cycle.state !== "running") return [];
  const { rounds, method } = cycle.training;
  const names = [`label 1/${rounds + 1}`];
  for (let turn = 1; turn <= rounds; turn += 1) {
    if (method === "plain") names.push(`plain ${turn}/${rounds}`);
    else names.push(`minimise ${turn}/${rounds}`, `maximise ${turn}/${rounds}`);
    names.push(`label ${turn + 1}/${rounds + 1}`);
  }
  const at = names.indexOf(cycle.message.split(",")[0]);
  return names.map((name, index) => ({
    key: name,
    name,
    state: index < at ? "done" : index === at ? "now" : "todo",
  }));
}
