import { text as readAll } from 'node:stream/consumers';
import { namesOf } from '../fleet/announcement.js';
import { type CookiePairs, parseCookies } from '../formats/cookies.js';
import { KeyRing } from '../keys/key-ring.js';
import type { Principal } from '../principal.js';
import { holds } from '../rollout/clamp.js';
import { type ClientRegistry, createClientRegistry, type ResolvedClient } from '../rollout/clients.js';
import { explainFlag, type FlagExplanation } from '../rollout/explain-stage.js';
import { openFlagSource } from '../rollout/flag-source.js';
import { flagUserKey, toContext } from '../rollout/flags.js';
import { createLastKnownFlags, readOnly } from '../rollout/last-known.js';
import { type EffectiveStage, effectiveStage } from '../rollout/stage.js';
import { isStage, STAGE_TABLE, type StageRules } from '../stages.js';
import { createLog } from '../telemetry/log.js';
import { createVerifier } from '../tokens/verify.js';
import { print } from './print.js';
import { type Room, withRoom } from './room.js';

export interface ExplainOptions {
  readonly config: string;
  readonly client?: string;
  readonly clientVersion?: string;
  readonly tenant?: string;
  readonly subject?: string;
  readonly json?: boolean;
}

/** Why somebody is at the stage where they are, and what they would be answered. */
interface Explanation {
  readonly credential: string;
  readonly principal?: Pick<Principal, 'subject' | 'tenant' | 'client' | 'via'>;
  readonly cohort?: string;
  /** What the flag source sees as the user's key. */
  readonly userKey?: string;
  readonly flags?: readonly FlagExplanation[];
  readonly heldBy?: readonly string[];
  readonly stage?: EffectiveStage;
  readonly answers: readonly string[];
}

/** `crossfade explain`: for a client, tenant and subject, or for a credential on standard input. Its status is 0 also for "refused". */
export async function explain(options: ExplainOptions): Promise<void> {
  const credential = options.subject === undefined ? (await readAll(process.stdin)).trim() : undefined;
  if (credential === '') throw new Error('give --subject, or a token or a Cookie header on standard input');
  await withRoom(options, async (room) => {
    const explanation = await explainAs(room, credential, options);
    if (options.json) print.json(explanation);
    else for (const line of pageOf(explanation)) print.line(line);
  });
}

async function explainAs(room: Room, credential: string | undefined, options: ExplainOptions): Promise<Explanation> {
  const clients = createClientRegistry(room.config.clients, room.config.rollout.cohorts);
  if (options.client !== undefined && !clients.byId(options.client))
    throw new Error(`there is no client ${options.client}: there are ${room.config.clients.map(({ id }) => id).join(', ')}`);
  const resolve = (id = options.client): ResolvedClient =>
    clients.resolve({ provenId: id, claimedVersion: options.clientVersion, header: () => undefined });

  if (credential === undefined) {
    const { subject = '', tenant } = options;
    return await explainPerson(room, clients, resolve(), { subject, tenant }, { credential: 'none: as if this person came', via: 'session' });
  }
  room.lifecycle.events.follow();
  await room.lifecycle.events.read(READ_MS);
  const bearer = credential.replace(/^authorization:\s*/i, '').replace(/^bearer\s+/i, '');
  const isToken = !bearer.includes('=') || /^[\w-]+=*\.[\w-]+=*\.[\w-]*=*$/.test(bearer);
  const isCookie = /^cookie:/i.test(credential) || !isToken;
  const judged = isCookie ? await judgeCookies(room, parseCookies(credential.replace(/^cookie:\s*/i, ''))) : await judgeBearer(room, bearer);
  if (!('principal' in judged)) return { credential: judged.says, answers: [judged.answer] };
  const { principal, says } = judged;
  const client = resolve(principal.via === 'jwt' ? principal.client : undefined);
  return await explainPerson(room, clients, client, principal, { credential: says, via: principal.via });
}

type Judged = { readonly says: string } & ({ readonly answer: string } | { readonly principal: Principal });

const ANONYMOUS = 'every request: anonymous';

async function judgeCookies({ lifecycle }: Room, cookies: CookiePairs): Promise<Judged> {
  const outcome = await lifecycle.sessions.read(cookies);
  switch (outcome.kind) {
    case 'absent':
      return { says: 'no cookie of a configured name', answer: ANONYMOUS };
    case 'rejected':
      return { says: `session cookie, not accepted: ${outcome.reason}`, answer: ANONYMOUS };
    case 'conflict':
      return { says: 'two session cookies of different persons', answer: 'every request: 400 invalid_request' };
    case 'authenticated': {
      const { sid, identity } = outcome.session;
      return { principal: { ...identity, sid, client: 'unknown', via: 'session' }, says: `session ${sid}` };
    }
  }
}

async function judgeBearer({ config, control, lifecycle, clock, nowMs }: Room, token: string): Promise<Judged> {
  const ring = new KeyRing(() => clock.now());
  const stored = await control.jwks.read();
  ring.setStored(stored?.keys ?? []);
  const { live } = await control.fleet.read(await nowMs());
  ring.setAnnounced(new Set(live.flatMap(({ verifies }) => verifies)));
  await control.denyList.sync();
  ring.deny(new Set(control.denyList.kids.keys()));
  const { issuer, audience } = config;
  const verify = createVerifier({
    policy: { issuer, audience, clockSkewSeconds: config.tokens.clockSkewSeconds },
    fleetPolicies: () => live,
    keys: ring,
    clock,
    revocations: { wereRead: lifecycle.events.wasRead, whatEnded: lifecycle.revocations.whatEnded },
  });
  const outcome = await verify(token);
  switch (outcome.kind) {
    case 'authenticated':
      return { principal: outcome.principal, says: `bearer of the session ${outcome.principal.sid}` };
    case 'rejected':
      return {
        says: `bearer, refused: ${outcome.reason}${outcome.ended ? ` (its ${outcome.ended} has ended)` : ''}`,
        answer: 'every request: 401 invalid_token',
      };
    case 'foreign':
      return {
        says: `bearer of somebody else's: bearer.foreign is ${config.bearer.foreign}`,
        answer: config.bearer.foreign === 'pass' ? ANONYMOUS : 'every request: 401 invalid_token',
      };
    case 'in-doubt':
      return { says: `bearer, in doubt: the ${outcome.about} are not known`, answer: 'every request: 503 temporarily_unavailable' };
  }
}

const READ_MS = 2000;

async function explainPerson(
  { config, control, metrics, nowMs }: Room,
  clients: ClientRegistry,
  client: ResolvedClient,
  { subject, tenant }: { readonly subject: string; readonly tenant?: string | undefined },
  { credential, via }: { readonly credential: string; readonly via: Principal['via'] },
): Promise<Explanation> {
  const { rollout } = config;
  const named = clients.cohortOf(client.id, tenant);
  const cohort = named ?? client.id;
  const userKey = flagUserKey(rollout, control.secrets.names.subject, subject);
  const context = toContext({ client: client.id, clientVersion: client.version, cohort: named, tenant, subject }, userKey);
  const log = createLog({ level: 'silent' });
  const source = await openFlagSource(config, undefined, {
    lastKnown: readOnly(createLastKnownFlags(control.flags, log)),
    log,
    audit: () => undefined,
    metrics,
  });
  try {
    const [stageFlag, killSwitch] = await Promise.all(
      [rollout.stageFlag, rollout.killSwitchFlag].map(async (key) => explainFlag(key, await source.detail(key, context), context, source.flag(key))),
    );
    await control.clamps.sync();
    const { live: instances } = await control.fleet.read(await nowMs());
    const unsigned = instances.filter(({ signs }) => signs === undefined).map(namesOf(instances));
    const clamped = control.clamps.ceilingsOf(client.id, cohort);
    const canSign = instances.length === 0 || unsigned.length < instances.length;
    const flag = stageFlag?.value;
    const stage = effectiveStage({
      flag: isStage(flag) ? flag : undefined,
      defaultStage: rollout.defaultStage,
      killSwitch: killSwitch?.value === true,
      signing: canSign,
      clientExchanges: client.exchanges,
      ...clamped,
    });
    return {
      credential,
      principal: { subject, client: client.id, via, ...(tenant === undefined ? {} : { tenant }) },
      cohort,
      userKey,
      flags: [stageFlag, killSwitch].flatMap((one) => one ?? []),
      heldBy: [
        ...(source.state === 'live' ? [] : [`flag source: ${source.problem ?? source.state}`]),
        ...(instances.length === 0 ? ['signing: no instance is alive to say'] : []),
        ...(unsigned.length > 0 ? [`signing: ${unsigned.join(', ')} cannot sign: session-only there`] : []),
        ...(killSwitch?.value === true ? ['kill switch: session-only'] : []),
        ...control.clamps.all
          .filter(({ selector }) => holds(selector, client.id, cohort))
          .map(({ stage: most, by, why }) => `${by}: at most ${most} (${why})`),
        ...(client.exchanges ? [] : [`client: at most jwt-preferred (${whyNoExchange(client)})`]),
      ],
      stage,
      answers: config.mode === 'observe' ? ['nothing: mode is observe'] : describeAnswers(canSign, STAGE_TABLE[stage.stage], client, via),
    };
  } finally {
    await source.close();
  }
}

function whyNoExchange({ id, config, version }: ResolvedClient): string {
  if (!config) return `${id} is no registered client`;
  return config.exchanges ? `version ${version ?? 'unknown'} is below ${config.minVersion}` : `${id} is registered without exchanges: true`;
}

function describeAnswers(canSign: boolean, rules: StageRules, client: ResolvedClient, via: Principal['via']): string[] {
  const exchange = !client.config?.exchanges
    ? '400 unauthorized_client: this client is not registered for it'
    : !canSign
      ? '503 temporarily_unavailable'
      : rules.exchange
        ? 'granted'
        : '400 unauthorized_client';
  const session = rules.session === 'accepted' ? 'accepted' : 'for page navigations; elsewhere 401 session_not_accepted';
  const refresh = !canSign ? '503 temporarily_unavailable' : rules.refresh === 'return' && client.config?.wayBack ? 'told to return' : 'granted';
  const forward = rules.nudge === 'forward' && via === 'session' && client.exchanges;
  const back = rules.nudge === 'back' && via === 'jwt' && client.config?.wayBack === true;
  return [
    `session: ${session}`,
    'bearer: accepted',
    `exchange: ${exchange}`,
    `refresh: ${refresh}`,
    `return: ${client.config?.wayBack && rules.wayBack ? 'open' : 'closed'}`,
    `nudge: ${forward ? 'to exchange' : back ? 'to return' : 'none'}`,
  ];
}

function pageOf({ credential, principal, cohort, userKey, flags = [], heldBy, stage, answers }: Explanation): string[] {
  return [
    `credential   ${credential}`,
    ...(principal
      ? [`principal    ${principal.subject}${principal.tenant === undefined ? '' : ` of tenant ${principal.tenant}`}, client ${principal.client}`]
      : []),
    ...(cohort === undefined ? [] : [`cohort       ${cohort}`]),
    ...(userKey === undefined ? [] : [`user key     ${userKey}, as the flag source sees it`]),
    ...flags.flatMap(({ flag, value, by, bucket }) => [
      `flag         ${flag} → ${JSON.stringify(value)}, by ${by}`,
      ...(bucket
        ? [
            `               bucket ${bucket.bucket === undefined ? `0: there is no ${bucket.by}` : `${bucket.bucket.toFixed(5)} by ${bucket.by}`}`,
            `               of ${bucket.shares.map((share) => `${share.percent} % ${String(share.value)}`).join(', ')}`,
          ]
        : []),
    ]),
    ...(heldBy ? [`held by      ${heldBy.join('; ') || 'nothing'}`] : []),
    ...(stage ? [`stage        ${stage.stage}, by ${stage.reason}`] : []),
    ...answers.map((answer, at) => `${at === 0 ? 'answers      ' : '             '}${answer}`),
  ];
}
