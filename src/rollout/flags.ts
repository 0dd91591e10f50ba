import type { LDEvaluationDetail, LDMultiKindContext } from 'launchdarkly-node-server-sdk';
import type { Config } from '../config/config.js';
import { pseudonym } from '../config/secret.js';
import { createRecent } from '../recent.js';
import type { Stage } from '../stages.js';
import { isStage } from '../stages.js';
import type { Tools } from '../telemetry/tools.js';

/** Whose stage is asked for. */
export interface RolloutSubject {
  readonly client: string;
  readonly clientVersion?: string | undefined;
  readonly cohort?: string | undefined;
  readonly tenant?: string | undefined;
  readonly subject: string;
}

/** What the flags say of somebody. */
export interface FlagAnswer {
  /** Undefined: the flag gives no stage that there is. */
  readonly stage: Stage | undefined;
  readonly killSwitch: boolean;
}

/** Where flags come from: LaunchDarkly's engine over a file, over LaunchDarkly, or in a client that the app already has. */
export interface FlagSource {
  /** The flag's value for a context; `fallback` where it gives none. Never stalls. */
  variation(flag: string, context: LDMultiKindContext, fallback: unknown): Promise<unknown>;
  /** The same, with how the flag came to it. */
  detail(flag: string, context: LDMultiKindContext): Promise<LDEvaluationDetail>;
  /** The flag as the source has it; undefined where it does not show it. */
  flag(key: string): Readonly<Record<string, unknown>> | undefined;
  /** Calls back after flags have changed. */
  onChange(listener: () => void): void;
  readonly state: 'live' | 'last-known' | 'none';
  /** For an operator: why it cannot be used now, and what is in force instead. Undefined: it can. */
  readonly problem: string | undefined;
  /** Looks now whether they have changed. Never rejects. */
  reload(): Promise<void>;
  close(): Promise<void>;
}

export interface FlagsOptions extends Pick<Tools, 'log' | 'metrics'> {
  readonly config: Pick<Config['rollout'], 'stageFlag' | 'killSwitchFlag' | 'subjectKey'>;
  readonly source: FlagSource;
  /** Derived from the fleet's secret: makes the pseudonyms that the flag source sees. */
  readonly subjectKey: Buffer;
}

export interface Flags {
  /** Another one after each change: what was answered under an earlier one is void. */
  readonly version: number;
  /** For an operator: values of the flags that mean nothing here, a sentence each. */
  readonly problems: readonly string[];
  /** At once, where the answer is remembered. Never rejects. */
  evaluate(subject: RolloutSubject): FlagAnswer | Promise<FlagAnswer>;
}

/** How many answers are remembered in any case, ~0.1 KB each. */
const MAX_REMEMBERED = 50_000;

/** Evaluates the two flags, once for the same client, version, tenant and subject until flags change. */
export function createFlags({ config, source, subjectKey, log, metrics }: FlagsOptions): Flags {
  const remembered = createRecent<string, FlagAnswer | Promise<FlagAnswer>>({ max: MAX_REMEMBERED });
  const named = new Map<string, string>();
  const answers = new Map<string, FlagAnswer>();
  let version = 0;
  source.onChange(() => {
    version += 1;
    remembered.clear();
    named.clear();
  });

  async function ask(subject: RolloutSubject): Promise<FlagAnswer> {
    metrics.flagEvaluations.inc();
    const context = toContext(subject, flagUserKey(config, subjectKey, subject.subject));
    const [stage, killSwitch] = await Promise.all([
      source.variation(config.stageFlag, context, undefined),
      source.variation(config.killSwitchFlag, context, false),
    ]);
    if (stage !== undefined && stage !== null && !isStage(stage)) nameOnce(config.stageFlag, stage);
    if (typeof killSwitch !== 'boolean') nameOnce(config.killSwitchFlag, killSwitch);
    return shared(isStage(stage) ? stage : undefined, killSwitch === true);
  }

  /** One object for all who get the same answer. */
  function shared(stage: Stage | undefined, killSwitch: boolean): FlagAnswer {
    const key = `${stage} ${killSwitch}`;
    const known = answers.get(key);
    if (known) return known;
    const answer = { stage, killSwitch };
    answers.set(key, answer);
    return answer;
  }

  /** A flag's value comes from the operators' own flags, never from a request. */
  function nameOnce(flag: string, value: unknown): void {
    const shown = typeof value === 'string' ? value.slice(0, 64) : typeof value;
    if (named.has(flag + shown)) return;
    named.set(flag + shown, `the flag ${flag} is ${JSON.stringify(shown)} for somebody, which means nothing here: the default stands`);
    log.warn({ flag, value: shown }, 'the flag has a value that means nothing here; the default stands');
  }

  /** In place of the promise, unless flags have changed meanwhile. */
  function settle(key: string, asked: Promise<FlagAnswer>, answer: FlagAnswer | undefined): void {
    if (remembered.get(key) !== asked) return;
    if (answer) remembered.set(key, answer);
    else remembered.delete(key);
  }

  return {
    get version() {
      return version;
    },
    get problems() {
      return [...named.values()];
    },
    evaluate(subject) {
      const key = keyOf(subject);
      const known = remembered.get(key);
      if (known) return known;
      const asked = ask(subject).then(
        (answer) => {
          settle(key, asked, answer);
          return answer;
        },
        (error: unknown): FlagAnswer => {
          settle(key, asked, undefined);
          log.error({ err: error }, 'the flags could not be evaluated; the default stands');
          return { stage: undefined, killSwitch: false };
        },
      );
      remembered.set(key, asked);
      return asked;
    },
  };
}

/** Client and cohort are names of the config, a version comes in a header: none of them has a line break. */
function keyOf({ client, clientVersion = '', cohort = '', tenant = '', subject }: RolloutSubject): string {
  return `${client}\n${clientVersion}\n${cohort}\n${tenant.length}\n${tenant}${subject}`;
}

/** The person as the flag source sees them. */
export function flagUserKey({ subjectKey }: Pick<Config['rollout'], 'subjectKey'>, key: Buffer, subject: string): string {
  return subjectKey === 'plain' ? subject : pseudonym(key, subject);
}

/** An empty key in any part would give the default for all of it, so a part without a key is left out. */
export function toContext({ client, clientVersion, cohort, tenant }: RolloutSubject, userKey: string): LDMultiKindContext {
  return {
    kind: 'multi',
    client: { key: client, ...(clientVersion ? { version: clientVersion } : {}), ...(cohort ? { cohort } : {}) },
    ...(tenant ? { tenant: { key: tenant } } : {}),
    user: { key: userKey },
  };
}

/** No flags at all: everybody is at the configured default. */
export const noFlags: FlagSource = {
  variation: async (_flag, _context, fallback) => fallback,
  detail: async () => ({ value: undefined, variationIndex: null, reason: { kind: 'OFF' } }),
  flag: () => undefined,
  onChange: () => undefined,
  state: 'live',
  problem: undefined,
  reload: async () => undefined,
  close: async () => undefined,
};
