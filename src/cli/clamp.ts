import { type ClampNames, type Confirmation, clampNames, countAffected, releaseClamp, setClamp } from '../console/clamping.js';
import { nameOfInstance } from '../fleet/announcement.js';
import { type Clamp, type ClampSelector, idOf, isSame, nameOfSelector } from '../rollout/clamp.js';
import { COUNTED_MINUTES, type TrafficCount } from '../rollout/traffic.js';
import type { Stage } from '../stages.js';
import { askYes, isAtTerminal } from './ask.js';
import { print } from './print.js';
import { changeInRoom } from './room.js';
import { count } from './words.js';

export interface SelectorOptions {
  readonly config: string;
  readonly client?: string;
  readonly cohort?: string;
  readonly all?: boolean;
  readonly json?: boolean;
}

export interface ClampOptions extends SelectorOptions {
  readonly why: string;
  /** In ms. */
  readonly for?: number;
  readonly yes?: boolean;
}

/** `crossfade clamp`: says how many it affects, and sets a clamp. False: the person at the terminal said no. */
export async function clamp(stage: Stage, options: ClampOptions): Promise<boolean> {
  return await changeInRoom(options, async (room) => {
    const { config, control, nowMs } = room;
    const { json = false } = options;
    const selector = selectorOf(options, clampNames(config));
    const affected = await countAffected(room, selector, stage);
    const instances = (await control.fleet.read(await nowMs())).live.length;
    await control.clamps.sync();
    const replaced = control.clamps.all.find((one) => one.by === 'operator' && isSame(one.selector, selector));
    if (!json) {
      print.line(
        `${nameOfSelector(selector)} → at most ${stage}: ${describeAffected(affected)} above it now, on ${count(instances, 'live instance')}.`,
      );
      if (replaced) print.line(`It replaces: at most ${replaced.stage} (${replaced.why}).`);
      if (!options.yes && isAtTerminal() && !(await askYes('Go on?'))) return false;
    }

    const request = { selector, stage, why: options.why, ...(options.for === undefined ? {} : { forMs: options.for }) };
    const { until, ...confirmation } = await setClamp(room, request);
    if (json) print.json({ selector, stage, ...affected, ...confirmation, ...(until === undefined ? {} : { until: new Date(until).toISOString() }) });
    else {
      print.line(
        `In force${until === undefined ? ' until crossfade release' : ` until ${new Date(until).toISOString()}`}, ${describeConfirmation(confirmation)}.`,
      );
      for (const { host, held } of confirmation.otherNames)
        print.line(
          held
            ? `${host} has no cohort ${nameOfSelector(selector)}: it holds the client and tenants that ${nameOfSelector(selector)} has here.`
            : `${host} has no cohort ${nameOfSelector(selector)}, and nothing here says whom it has: the clamp has no effect there.`,
        );
    }
    return true;
  });
}

/** `crossfade release --instance NAME`: lets an instance go on that is held because it fails where others do not. */
async function releaseInstance(
  name: string,
  { config: path, why = 'released', json = false }: SelectorOptions & { readonly why?: string },
): Promise<void> {
  await changeInRoom({ config: path, json }, async ({ control, nowMs, tell }) => {
    const { live } = await control.fleet.read(await nowMs());
    const found = live.filter((one) => nameOfInstance(one) === name || one.instance === name || one.host === name);
    const [first] = found;
    if (!first || found.length > 1)
      throw new Error(
        `${first ? 'more than one instance is' : 'no live instance is'} called ${name}: there are ${live.map(nameOfInstance).join(', ')}`,
      );
    if (!first.held) throw new Error(`${nameOfInstance(first)} is not held`);
    await control.fleet.release(first.instance, { heldAt: first.held.at, why });
    await tell();
    for (const end = Date.now() + RELEASE_MS; ; ) {
      await new Promise((resolve) => setTimeout(resolve, 200));
      const now = (await control.fleet.read(await nowMs())).live.find(({ instance }) => instance === first.instance);
      if (!now || now.held?.at !== first.held.at) break;
      if (Date.now() > end) throw new Error(`${nameOfInstance(first)} was told, and has not said that it goes on: see crossfade status`);
    }
    if (json) print.json({ instance: nameOfInstance(first), released: first.held });
    else print.line(`${nameOfInstance(first)} goes on. It was held for ${first.held.of} of ${first.held.cohort}: ${first.held.fault}.`);
  });
}

/** How long a held instance has to say that it goes on. */
const RELEASE_MS = 8000;

/** `crossfade release`: takes clamps away, whoever has set them. */
export async function release(
  id: string | undefined,
  options: SelectorOptions & { readonly why?: string; readonly instance?: string },
): Promise<void> {
  if (options.instance !== undefined) return await releaseInstance(options.instance, options);
  await changeInRoom(options, async (room) => {
    const { config, control } = room;
    await control.clamps.sync();
    // Also of what the configuration no longer has.
    const { all } = control.clamps;
    const held = all.map((one) => one.selector);
    const { clients, cohorts } = clampNames(config);
    const byId = id === undefined ? undefined : findById(all, id, options);
    const selector =
      byId?.selector ??
      selectorOf(options, {
        clients: [...clients, ...held.flatMap((one) => (one.on === 'client' ? [one.name] : []))],
        cohorts: [...cohorts, ...held.flatMap((one) => (one.on === 'cohort' ? [one.name] : []))],
      });
    const { released, ...confirmation } = await releaseClamp(
      room,
      id === undefined && selector.on !== 'unknown' ? selector : { id: id ?? '' },
      options.why,
    );
    if (options.json) print.json({ selector, released, ...confirmation });
    else if (released.length === 0) print.line(`Nothing held ${nameOfSelector(selector)}.`);
    else {
      for (const { stage, by, why } of released) print.line(`Released: ${nameOfSelector(selector)} was held at ${stage} by the ${by}: ${why}`);
      print.line(`The same ${describeConfirmation(confirmation)}.`);
    }
  });
}

function describeConfirmation({ instances, missing }: Confirmation): string {
  if (instances === 0) return 'for whatever starts: no instance is alive';
  if (missing.length === 0) return `on ${instances === 1 ? 'the live instance' : `all ${instances} live instances`}`;
  return `but ${missing.join(', ')} did not confirm it: see crossfade status`;
}

/** A clamp whose selector a later release has written has no other name. */
function findById(clamps: readonly Clamp[], id: string, { client, cohort, all }: SelectorOptions): Clamp {
  if (client !== undefined || cohort !== undefined || all !== undefined)
    throw new Error('say whom: an id, or one of --client ID, --cohort NAME, --all');
  const found = clamps.find((clamp) => idOf(clamp) === id);
  if (!found) throw new Error(`no clamp has the id ${id}: crossfade status --json names them`);
  return found;
}

function selectorOf({ client, cohort, all }: SelectorOptions, { clients, cohorts }: ClampNames): ClampSelector {
  const given = [client, cohort, all].filter((one) => one !== undefined);
  if (given.length !== 1) throw new Error('say whom: exactly one of --client ID, --cohort NAME, --all');
  if (client !== undefined) return { on: 'client', name: known(client, clients, 'client') };
  if (cohort !== undefined) return { on: 'cohort', name: known(cohort, cohorts, 'cohort') };
  return { on: 'all' };
}

function known(name: string, names: readonly string[], what: string): string {
  if (!names.includes(name)) throw new Error(`there is no ${what} ${name}: there are ${names.join(', ')}`);
  return name;
}

function describeAffected({ subjects, requestsPerMinute }: TrafficCount): string {
  return `${count(subjects, 'person', 'people')} (seen in ${COUNTED_MINUTES} minutes) and ${count(requestsPerMinute, 'request')} a minute are`;
}
