// What models said to the capability probes, side by side, with the scores people gave.
import { useAnswer, type Dimensions, type Page, type Run } from "../api";
import { Pick, Show, When } from "../parts";
import { useParam } from "../router";
import { build, count, figure, joined } from "../words";

const KIND = "capability:";

export function Answers() {
  const dimensions = useAnswer<Dimensions>("dimensions");
  return (
    <Show answer={dimensions} empty={(d) => !d.scenario.some((name) => name.startsWith(KIND))
      && "No capability probes yet: add [[scenarios.capability_probes]] to the settings."}>
      {(found) => <Chosen dimensions={found} />}
    </Show>
  );
}

const probe = (run: Run): string => run.scenario.slice(KIND.length);
const unique = (values: string[]): string[] => [...new Set(values)].sort();

function Chosen({ dimensions }: { dimensions: Dimensions }) {
  const [wanted, setWanted] = useParam("probe");
  const [target, setTarget] = useParam("target");
  const [model, setModel] = useParam("model");
  const answer = useAnswer<Page>("capability", { target, model, scenario: wanted && KIND + wanted });
  const probes = dimensions.scenario.filter((name) => name.startsWith(KIND)).map((name) => name.slice(KIND.length));
  return (
    <>
      <div className="filters">
        <Pick label="Probe" all="all" value={wanted} options={probes} onChange={setWanted} />
        <Pick label="Target" all="all" value={target} options={dimensions.target} onChange={setTarget} />
        <Pick label="Model" all="all" value={model} options={dimensions.model} onChange={setModel} />
      </div>
      <Show answer={answer} empty={(page) => !page.runs.length && "Nothing was asked that fits."}>
        {(page) => <Told {...page} />}
      </Show>
    </>
  );
}

function Told({ runs, count: all }: Page) {
  return (
    <>
      {runs.length < all && (
        <p className="notice">The newest {count(runs.length)} of {count(all)} answers are shown. Choose a probe, a target or a model for the others.</p>
      )}
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
      {(artifact || ok !== false) && <pre tabIndex={0} role="group" dir="auto" aria-label={`answer of ${run.model.model}`}>{artifact || "(nothing)"}</pre>}
      <p className="quiet">
        {run.score === undefined || run.score === null
          ? <>not scored yet: <code>helexa bench score {run.id} SCORE</code></>
          : <>score <strong>{figure(run.score)}</strong></>}
      </p>
    </article>
  );
}
