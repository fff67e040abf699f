// The address is the state: every view can be linked to.
import { useCallback, useSyncExternalStore } from "react";

const CHANGED = "helexa:address";

function subscribe(notify: () => void): () => void {
  window.addEventListener("popstate", notify);
  window.addEventListener(CHANGED, notify);
  return () => {
    window.removeEventListener("popstate", notify);
    window.removeEventListener(CHANGED, notify);
  };
}

export function go(address: string, replace = false): void {
  if (replace) history.replaceState(null, "", address);
  else history.pushState(null, "", address);
  window.dispatchEvent(new Event(CHANGED));
}

export function useAddress(): { path: string; query: URLSearchParams } {
  const address = useSyncExternalStore(subscribe, () => location.pathname + location.search);
  const [path = "/", search = ""] = address.split("?");
  return { path, query: new URLSearchParams(search) };
}

/** One parameter of the address, and how to change it (others stay). */
export function useParam(name: string): [string, (value: string) => void] {
  const { path, query } = useAddress();
  const set = useCallback(
    (value: string) => {
      const next = new URLSearchParams(location.search);
      if (value) next.set(name, value);
      else next.delete(name);
      const text = next.toString();
      go(text ? `${path}?${text}` : path, true);
    },
    [name, path],
  );
  return [query.get(name) ?? "", set];
}
