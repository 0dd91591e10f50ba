/** What of this instance needs an operator: gathered from the parts that know, told in `status`, on the console and to the other instances. */
export interface Problems {
  /** Adds a part that is asked each time. It gives a sentence for each problem that it has at that moment, in words for an operator. */
  add(source: () => readonly string[]): void;
  readonly all: readonly string[];
}

export function createProblems(): Problems {
  const sources: (() => readonly string[])[] = [];
  return {
    add: (source) => void sources.push(source),
    get all() {
      return sources.flatMap((source) => source());
    },
  };
}
