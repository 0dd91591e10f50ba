import type { Config } from '../config/config.js';
import type { Principal } from '../principal.js';
import { STAGE_TABLE, type StageRules } from '../stages.js';
import type { Clamps } from './clamps.js';
import type { ClientRegistry, ResolvedClient } from './clients.js';
import type { FlagAnswer, Flags } from './flags.js';
import { type EffectiveStage, effectiveStage } from './stage.js';
import type { Traffic } from './traffic.js';

export interface Decision extends EffectiveStage {
  readonly rules: StageRules;
  /** The cohort that was decided for: one that the config names, else the client's id. */
  readonly cohort: string;
}

/** Whom a stage is for; `via`: by which credential of a request they came; `isPage`: whether it is a browser's navigation to a page. */
export interface Decided {
  readonly subject: string;
  readonly tenant?: string | undefined;
  readonly via?: Principal['via'];
  readonly isPage?: boolean;
}

export interface Rollout {
  /**
   * How far this person on this client is, and why. At once, where the flags' answer is remembered. `lasting`: an object that is the same
   * for this person each time, by which they are found again sooner than by their names.
   */
  decide(client: ResolvedClient, person: Decided, lasting?: object): Decision | Promise<Decision>;
}

export interface RolloutOptions {
  readonly config: Pick<Config['rollout'], 'defaultStage'>;
  readonly flags: Flags;
  readonly clients: ClientRegistry;
  readonly clamps: Pick<Clamps, 'ceilingsOf'>;
  readonly traffic: Pick<Traffic, 'count'>;
  readonly canSign: () => boolean;
}

/** What the flags said of somebody, and for which client. */
interface Recalled {
  readonly client: ResolvedClient;
  readonly cohort: string;
  readonly answer: FlagAnswer;
  readonly version: number;
}

export function createRollout(options: RolloutOptions): Rollout {
  const { config, flags, clients, clamps, traffic, canSign } = options;
  const recalled = new WeakMap<object, Recalled>();
  const lastRecalled = new Map<string, Recalled>();

  function judge(
    client: ResolvedClient,
    cohort: string,
    { subject, tenant, via, isPage = false }: Decided,
    { stage, killSwitch }: FlagAnswer,
  ): Decision {
    const decided = effectiveStage({
      flag: stage,
      defaultStage: config.defaultStage,
      killSwitch,
      signing: canSign(),
      clientExchanges: client.exchanges,
      ...clamps.ceilingsOf(client.id, cohort, tenant),
    });
    traffic.count({ client: client.id, version: client.version, cohort, subject, via, isPage, exchanges: client.exchanges }, decided);
    return { stage: decided.stage, reason: decided.reason, cohort, rules: STAGE_TABLE[decided.stage] };
  }

  /** One for all of whom the same was said. */
  function toRecall(client: ResolvedClient, cohort: string, answer: FlagAnswer): Recalled {
    const { version } = flags;
    const known = lastRecalled.get(cohort);
    if (known?.client === client && known.answer === answer && known.version === version) return known;
    const next = { client, cohort, answer, version };
    lastRecalled.set(cohort, next);
    return next;
  }

  return {
    decide(client, person, lasting) {
      const before = lasting && recalled.get(lasting);
      if (before && before.client === client && before.version === flags.version) return judge(client, before.cohort, person, before.answer);
      const { subject, tenant } = person;
      const named = clients.cohortOf(client.id, tenant);
      const cohort = named ?? client.id;
      const answer = flags.evaluate({ client: client.id, clientVersion: client.version, cohort: named, tenant, subject });
      if (answer instanceof Promise) return answer.then((later) => judge(client, cohort, person, later));
      if (lasting) recalled.set(lasting, toRecall(client, cohort, answer));
      return judge(client, cohort, person, answer);
    },
  };
}
