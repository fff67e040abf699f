// What models said to the capability probes, with the scores people gave.
import { useAnswer, type Page } from "../api";
import { Show } from "../parts";
import { build, date, figure } from "../words";

export function Answers() {
  const answer = useAnswer<Page>("capability");
  return (
    <Show answer={answer} empty={(page) => !page.runs.length && "No capability probes yet: add [[scenarios.capability_probes]] to the settings."}>
      {(page) => (
        <>
          {page.runs.map((run) => (
            <article key={run.id} className="answer">
              <h2>{run.scenario.replace("capability:", "")} <small>{run.source.target} · {run.model.model} · {build(run.source.build)} · {date(run.at)}</small></h2>
              <pre tabIndex={0} aria-label="answer">{run.result.artifact || run.result.error || "(nothing)"}</pre>
              <p className="quiet">
                {run.score === undefined || run.score === null
                  ? <>not scored yet: <code>helexa bench score {run.id} SCORE</code></>
                  : <>score {figure(run.score)}</>}
              </p>
            </article>
          ))}
        </>
      )}
    </Show>
  );
}
