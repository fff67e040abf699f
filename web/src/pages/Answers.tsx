// What models said to the capability probes, side by side, with the scores people gave.
import { useAnswer, type Page, type Run } from "../api";
import { Pick, Show, When } from "../parts";
import { useParam } from "../router";
import { build, figure, joined } from "../words";

export function Answers() {
  const answer = useAnswer<Page>("capability");
  return (
    <Show answer={answer} empty={(page) => !page.runs.length && "No capability probes yet: add [[scenarios.capability_probes]] to the settings."}>
      {(page) => <Chosen all={page.runs} />}
    </Show>
  );
}

const probe = (run: Run): string => run.scenario.replace("capability:", "");
const unique = (values: string[]): string[] => [...new Set(values)].sort();

function Chosen({ all }: { all: Run[] }) {
  const [wanted, setWanted] = useParam("probe");
  const [target, setTarget] = useParam("target");
  const [model, setModel] = useParam("model");
  const runs = all.filter((run) => (!wanted || probe(run) === wanted)
    && (!target || run.source.target === target) && (!model || run.model.model === model));
  return (
    <>
      <div className="filters">
        <Pick label="Probe" all="all" value={wanted} options={unique(all.map(probe))} onChange={setWanted} />
        <Pick label="Target" all="all" value={target} options={unique(all.map((run) => run.source.target))} onChange={setTarget} />
        <Pick label="Model" all="all" value={model} options={unique(all.map((run) => run.model.model))} onChange={setModel} />
      </div>
      {runs.length === 0 && <div className="notice"><p>Nothing was asked that fits.</p></div>}
      {unique(runs.map(probe)).map((name) => (
        <section key={name}>
          <h2><bdi>{name}</bdi></h2>
          <div className="answers">
            {runs.filter((run) => probe(run) === name).map((run) => <Answer key={run.id} run={run} />)}
          </div>
        </section>
      ))}
    </>
  );
}

function Answer({ run }: { run: Run }) {
  const { artifact, error, ok } = run.result;
  return (
    <article className="answer">
      <h3><bdi>{run.model.model}</bdi></h3>
      <p className="quiet">{joined(run.source.target, build(run.source.build))} · <When at={run.at} /></p>
      {ok === false && <p className="change slower"><span aria-hidden="true">✗</span> failed: {error}</p>}
      {(artifact || ok !== false) && <pre tabIndex={0} dir="auto" aria-label={`answer of ${run.model.model}`}>{artifact || "(nothing)"}</pre>}
      <p className="quiet">
        {run.score === undefined || run.score === null
          ? <>not scored yet: <code>helexa bench score {run.id} SCORE</code></>
          : <>score <strong>{figure(run.score)}</strong></>}
      </p>
    </article>
  );
}
