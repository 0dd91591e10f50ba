import type { Config } from '../config/config.js';
import { CrossfadeError } from '../errors.js';
import { namesOf } from '../fleet/announcement.js';
import { type Clamp, type ClampSelector, scoped, scopeOfCohort } from '../rollout/clamp.js';
import { stagesAbove } from '../rollout/stage.js';
import { readTraffic, type TrafficCount } from '../rollout/traffic.js';
import type { Stage } from '../stages.js';
import type { OverviewSource } from './overview.js';

export interface ClampSource extends OverviewSource {
  /** Has every instance read the clamps again. */
  readonly tell: () => Promise<void>;
}

/** Which instances have the same clamps in force as Redis has. */
export interface Confirmation {
  readonly instances: number;
  /** Hosts that have not said so. */
  readonly missing: readonly string[];
  /** Hosts that do not have a cohort of this name; `held`: they hold the client and tenants that it had where the clamp was set. */
  readonly otherNames: readonly { readonly host: string; readonly held: boolean }[];
}

export interface ClampRequest {
  readonly selector: ClampSelector;
  readonly stage: Stage;
  readonly why: string;
  /** How long, in ms; without it until it is released. */
  readonly forMs?: number;
}

/** How long instances have to say that they have heard. */
const CONFIRM_MS = 3000;

/** How many come who are above the stage now. Rejects with what ioredis rejects with. */
export async function countAffected(source: OverviewSource, selector: ClampSelector, stage: Stage): Promise<TrafficCount> {
  const { config, control, client, nowMs } = source;
  const above: readonly string[] = stagesAbove(stage);
  const cohorts = selector.on === 'client' ? cohortsOf(config, selector.name) : undefined;
  const isMeant = (cohort: string) => selector.on === 'all' || (cohorts ? cohorts.has(cohort) : selector.on === 'cohort' && cohort === selector.name);
  return await readTraffic(client, control.prefix, await nowMs(), (cohort, at) => isMeant(cohort) && above.includes(at));
}

function cohortsOf({ rollout }: Pick<Config, 'rollout'>, client: string): ReadonlySet<string> {
  return new Set([client, ...rollout.cohorts.filter((one) => one.client === client).map(({ name }) => name)]);
}

/**
 * Holds somebody at a stage, on all instances, and waits until they have confirmed it.
 * @throws {CrossfadeError} `invalid_request` where somebody else has changed the clamps in the same moment.
 */
export async function setClamp(source: ClampSource, { selector, stage, why, forMs }: ClampRequest): Promise<Confirmation & { until?: number }> {
  const at = await source.nowMs();
  const until = forMs === undefined ? {} : { until: at + forMs };
  const scope = selector.on === 'cohort' ? scopeOfCohort(source.config, selector.name) : undefined;
  await source.control.clamps.set({ selector, stage, by: 'operator', why, at, ...until, ...scoped(scope) });
  await source.tell();
  const confirmation = await confirm(source, selector);
  if (!source.control.clamps.all.some((one) => one.at === at && one.stage === stage))
    throw new CrossfadeError('invalid_request', { message: 'somebody else has changed the clamps at the same time: do the same again' });
  return { ...confirmation, ...until };
}

/** Takes clamps away, whoever has set them: those with this selector, or the one with this id. */
export async function releaseClamp(
  source: ClampSource,
  which: ClampSelector | { readonly id: string },
  why?: string,
): Promise<Confirmation & { released: readonly Clamp[] }> {
  const released = await source.control.clamps.release(which, why);
  await source.tell();
  return { ...(await confirm(source)), released };
}

async function confirm({ control, nowMs }: OverviewSource, selector?: ClampSelector): Promise<Confirmation> {
  for (const end = Date.now() + CONFIRM_MS; ; ) {
    // Where Redis has just come back empty, an instance may write what it knew in the same moment.
    await new Promise((resolve) => setTimeout(resolve, 100));
    await control.clamps.sync();
    const { live } = await control.fleet.read(await nowMs());
    const missing = live.filter(({ clamps }) => clamps !== control.clamps.digest).map(namesOf(live));
    if (missing.length > 0 && Date.now() <= end) continue;
    const nameOf = namesOf(live);
    const otherNames = live.flatMap((one) =>
      (one.unknownCohorts ?? [])
        .filter(({ name }) => selector?.on === 'cohort' && name === selector.name)
        .map(({ held }) => ({ host: nameOf(one), held })),
    );
    return { instances: live.length, missing, otherNames };
  }
}

/** Names that a clamp can be set on. */
export interface ClampNames {
  readonly clients: readonly string[];
  readonly cohorts: readonly string[];
}

export function clampNames(config: Pick<Config, 'clients' | 'rollout'>): ClampNames {
  const clients = [...config.clients.map(({ id }) => id), 'unknown'];
  return { clients, cohorts: [...config.rollout.cohorts.map(({ name }) => name), ...clients] };
}
