// What loading costs.
import { useAnswer, type Cell } from "../api";
import { Show, Standing, Table } from "../parts";
import { build, figure } from "../words";

export function Swap() {
  const answer = useAnswer<Cell[]>("swap");
  return (
    <Show answer={answer} empty={(cells) => !cells.length && "No cold or swap runs yet: add them to [scenarios] names in the settings."}>
      {(cells) => {
        const longest = Math.max(...cells.map((cell) => cell.metrics["load_ms"]?.high ?? 0), 1);
        const number = (text: string) => ({ title: text, number: true });
        return (
          <Table caption="Loads, newest build"
            head={["model", "scenario", number("load (s)"), "beside the longest", "change", number("first token after it (ms)"), "build"]}
            rows={cells.map((cell, i) => {
              const load = cell.metrics["load_ms"];
              return {
                key: `${cell.target} ${cell.model} ${cell.scenario}`,
                group: cell.target === cells[i - 1]?.target ? undefined : cell.target,
                cells: [cell.model, cell.scenario,
                  load ? `${figure(load.median / 1000)} (${figure(load.low / 1000)} to ${figure(load.high / 1000)})` : "no good run",
                  <span className="bar" aria-hidden="true" style={{ width: `${((load?.median ?? 0) / longest) * 8}em` }} />,
                  <Standing cell={cell} />, figure(cell.metrics["first_token_ms"]?.median), build(cell.build)],
              };
            })} />
        );
      }}
    </Show>
  );
}
