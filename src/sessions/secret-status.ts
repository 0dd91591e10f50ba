import type { EntrySecrets } from '../formats/entry-secrets.js';

/** What an operator sees of a secret. */
export interface CookieSecretStatus {
  readonly entry: string;
  readonly name: string;
  /** `file`: in `secretsFile` here, or only on other instances. `dropped`: a file has lost it, and it verifies until `until`. `ended`: it verifies nothing. */
  readonly state: 'file' | 'dropped' | 'ended';
  readonly signs: boolean;
  /** In ms, by Redis' clock. */
  readonly until?: number;
  /** Share of the sessions of the last minutes whose cookie it has signed, 0 to 1; undefined: none came. */
  readonly share?: number;
}

export function statusOf(entry: EntrySecrets): CookieSecretStatus[] {
  const held = new Map(entry.held.map((one) => [one.name, one]));
  const ended = [...entry.notes.keys()].filter((name) => entry.isEnded(name));
  const names = [...entry.inFile.map(({ name }) => name), ...held.keys(), ...ended];
  return [...new Set(names)].map((name): CookieSecretStatus => {
    const until = held.get(name)?.until;
    const share = entry.shareOf(name);
    return {
      entry: entry.entry,
      name,
      state: entry.isEnded(name) ? 'ended' : until === undefined ? 'file' : 'dropped',
      signs: entry.signing?.name === name,
      ...(until === undefined ? {} : { until }),
      ...(share === undefined ? {} : { share }),
    };
  });
}

/** For an operator, a sentence for each secret that a file has lost, or that it holds in vain. */
export function problemsOf(entry: EntrySecrets): string[] {
  entry.update();
  const lost = entry.held.flatMap(({ name, until }) => (until === undefined ? [] : [{ name, until }]));
  const unused = entry.inFile.filter(({ name }) => entry.isEnded(name));
  return [
    ...lost.map(({ name, until }) => {
      const share = entry.shareOf(name);
      const used = share === undefined ? 'no session came yet' : `${Math.round(share * 1000) / 10} % of the sessions of the last minutes use it`;
      return `sessions.${entry.entry}: secretsFile has lost the cookie secret ${name}, which verifies until ${new Date(until).toISOString()} (${used}): crossfade secrets drop ${name} ends it at once`;
    }),
    ...unused.map(
      ({ name }) => `sessions.${entry.entry}: secretsFile holds the cookie secret ${name}, which was dropped and verifies nothing: take it out`,
    ),
  ];
}
