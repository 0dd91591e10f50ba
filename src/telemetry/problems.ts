/** What of this instance needs an operator: gathered from the parts that know, told in `status`, on the console and to the other instances. */
export interface Problems {
  /** Adds parts that are asked each time. Each gives a sentence for each problem that it has at that moment, in words for an operator. */
  add(...more: (() => readonly string[])[]): void;
  readonly all: readonly string[];
}

export function createProblems(): Problems {
  const sources: (() => readonly string[])[] = [];
  return {
    add: (...more) => void sources.push(...more),
    get all() {
      return sources.flatMap((source) => source());
    },
  };
}
