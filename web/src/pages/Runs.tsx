// Every run: filtered, sorted, paged, and each with its raw row.
import { url, useAnswer, type Dimensions, type Page, type Run } from "../api";
import { Pick, Show, Table, When } from "../parts";
import { useParam } from "../router";
import { build, count, figure } from "../words";

const PAGE = 50;
/** Of one answer, the same as MOST_ROWS of helexa.bench.store.reader. */
const MOST_ROWS = 1000;
const AFTER_OUTCOME = "first_token_ms";
const FIGURES = new Set(["first_token_ms", "decode_rate", "total_ms"]);
const SORTS: [string, string][] = [
  ["at", "time (UTC)"], ["target", "target"], ["model", "model"], ["scenario", "scenario"],
  ["first_token_ms", "first token (ms)"], ["decode_rate", "tokens/s"], ["total_ms", "total (ms)"],
];

export function Runs() {
  const dimensions = useAnswer<Dimensions>("dimensions");
  return (
    <Show answer={dimensions} empty={(d) => !d.target.length && "No runs yet."}>
      {(found) => <Filtered dimensions={found} />}
    </Show>
  );
}

function Filtered({ dimensions }: { dimensions: Dimensions }) {
  const [target, setTarget] = useParam("target");
  const [model, setModel] = useParam("model");
  const [scenario, setScenario] = useParam("scenario");
  const [outcome, setOutcome] = useParam("ok");
  const [ofBuild, setBuild] = useParam("build");
  const [sort, setSort] = useParam("sort");
  const [order, setOrder] = useParam("order");
  const [offset, setOffset] = useParam("offset");
  const at = Number(offset) || 0;
  const query = { target, model, scenario, build: ofBuild, ok: outcome, sort, order };
  const answer = useAnswer<Page>("runs", { ...query, limit: String(PAGE), offset: at ? String(at) : undefined });
  const [open, setOpen] = useParam("run");
  const leave = (to = "") => { setOpen(""); setOffset(to); };
  const chosen = (set: (value: string) => void) => (value: string) => { leave(); set(value); };
  const sortBy = (name: string) => {
    leave();
    if ((sort || "at") === name) setOrder(order === "asc" ? "" : "asc");
    else setSort(name === "at" ? "" : name);
  };
  const arrow = (name: string) => (sort || "at") === name ? (order === "asc" ? " ↑" : " ↓") : "";
  return (
    <>
      <div className="filters">
        <Pick label="Target" all="all" value={target} options={dimensions.target} onChange={chosen(setTarget)} />
        <Pick label="Model" all="all" value={model} options={dimensions.model} onChange={chosen(setModel)} />
        <Pick label="Scenario" all="all" value={scenario} options={dimensions.scenario} onChange={chosen(setScenario)} />
        <Pick label="Build" all="all" value={ofBuild} options={dimensions.build} onChange={chosen(setBuild)} show={build} />
        <Pick label="Outcome" all="all" value={outcome} options={["true", "false"]} onChange={chosen(setOutcome)}
          show={(value) => (value === "true" ? "good" : "failed")} />
      </div>
      <Show answer={answer} empty={(page) => !page.runs.length && "No run fits."}>
        {(page) => (
          <>
            {open && !page.runs.some((run) => String(run.id) === open) && <Elsewhere id={open} />}
            <Table caption={`Runs ${count(at + 1)} to ${count(at + page.runs.length)} of ${page.count === 2000 ? "the newest 2,000" : count(page.count)}`}
              head={[...SORTS.flatMap(([name, words]) => [...(name === AFTER_OUTCOME ? ["outcome"] : []), {
                title: (
                  <button key={name} className="sort" onClick={() => sortBy(name)}
                    aria-label={`sort by ${words}`}>{words}{arrow(name)}</button>
                ),
                sort: (sort || "at") !== name ? undefined : order === "asc" ? "ascending" as const : "descending" as const,
                number: FIGURES.has(name),
              }]), "build", "row"]}
              rows={page.runs.map((run) => ({
                key: String(run.id),
                cells: [...cells(run), <Opener run={run} open={open === String(run.id)} onOpen={setOpen} />],
                detail: open === String(run.id) && <Raw run={run} />,
              }))} />
            <p className="pages">
              <button disabled={at === 0} onClick={() => leave(at > PAGE ? String(at - PAGE) : "")}>Newer</button>
              <button disabled={at + PAGE >= page.count} onClick={() => leave(String(at + PAGE))}>Older</button>
              <a href={url("runs", { ...query, limit: String(MOST_ROWS) })} download="runs.json">Download {page.count > MOST_ROWS && `the first ${count(MOST_ROWS)} `}as JSON</a>
            </p>
          </>
        )}
      </Show>
    </>
  );
}

function cells(run: Run) {
  const failed = run.result.ok === false;
  return [
    <When at={run.at} bare />, run.source.target, run.model.model, run.scenario,
    failed ? <Failed why={run.result.error ?? ""} /> : "good",
    figure(run.result.first_token_ms), figure(run.result.decode_rate), figure(run.result.total_ms),
    build(run.source.build),
  ];
}

function Failed({ why }: { why: string }) {
  return <span className="failed"><span className="change slower"><span aria-hidden="true">✗</span> failed</span>{why && `: ${why}`}</span>;
}

function Raw({ run }: { run: Run }) {
  return <pre tabIndex={0} id="raw" role="group" aria-label={`run ${run.id}`}>{JSON.stringify(run, null, 1)}</pre>;
}

/** A run that somebody has linked to, and that newer ones have pushed off the page since. */
function Elsewhere({ id }: { id: string }) {
  const answer = useAnswer<Run>(`runs/${encodeURIComponent(id)}`);
  return <Show answer={answer}>{(run) => <><p className="caption">Run {run.id}, which is not on this page</p><Raw run={run} /></>}</Show>;
}

function Opener({ run, open, onOpen }: { run: Run; open: boolean; onOpen: (id: string) => void }) {
  return (
    <button aria-expanded={open} aria-controls={open ? "raw" : undefined} aria-label={`${open ? "hide" : "show"} run ${run.id}`}
      onClick={() => onOpen(open ? "" : String(run.id))}>{open ? "hide" : "show"}</button>
  );
}
