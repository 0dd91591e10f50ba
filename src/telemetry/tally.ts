import { Counter, type CounterConfiguration } from 'prom-client';

/** A counter for the request's path: it is added up, and its labels are joined, when somebody asks for the metrics. */
export interface Tally<Values extends readonly string[]> {
  /** Counts one; a value for each label, in their order. */
  count(...values: Values): void;
  /** How many were counted since the start. */
  readonly total: number;
}

type ValuesOf<Names extends readonly string[]> = { readonly [At in keyof Names]: string };

interface Node {
  count: number;
  readonly next: Map<string, Node>;
}

/** Registers a counter, and gives what counts for it. */
export function createTally<const Names extends readonly string[]>(
  configuration: Omit<CounterConfiguration<Names[number]>, 'collect' | 'labelNames'> & { readonly labelNames: Names },
): Tally<ValuesOf<Names>> {
  const root = createNode();
  let total = 0;
  const { labelNames } = configuration;

  function addUp(counter: Counter<string>, node: Node, values: readonly string[]): void {
    if (node.count > 0) counter.inc(Object.fromEntries(labelNames.map((name, at) => [name, values[at] ?? ''])), node.count);
    node.count = 0;
    for (const [value, next] of node.next) addUp(counter, next, [...values, value]);
  }

  new Counter<string>({
    ...configuration,
    labelNames: [...labelNames],
    collect() {
      addUp(this, root, []);
    },
  });

  return {
    get total() {
      return total;
    },
    count(...values) {
      total += 1;
      let node = root;
      for (let at = 0; at < values.length; at++) {
        const value = values[at] ?? '';
        let next = node.next.get(value);
        if (!next) {
          next = createNode();
          node.next.set(value, next);
        }
        node = next;
      }
      node.count += 1;
    },
  };
}

function createNode(): Node {
  return { count: 0, next: new Map() };
}
