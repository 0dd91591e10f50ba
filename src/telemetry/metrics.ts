import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import { createTally } from './tally.js';

export type Metrics = ReturnType<typeof createMetrics>;

/**
 * Everything that `/metrics` exposes. Labels are bounded: `client` is a configured id or `unknown`, everything else is
 * a literal of ours.
 */
export function createMetrics({ processMetrics = false } = {}) {
  const registry = new Registry();
  const registers = [registry];
  if (processMetrics) collectDefaultMetrics({ register: registry, prefix: 'crossfade_' });

  return {
    registry,
    requests: createTally({
      name: 'crossfade_requests_total',
      help: 'Requests that were authenticated, by the credential that decided and the outcome.',
      labelNames: ['credential', 'outcome', 'client'] as const,
      registers,
    }),
    rejections: createTally({
      name: 'crossfade_rejections_total',
      help: 'Credentials that were presented and are none, by reason.',
      labelNames: ['credential', 'reason'] as const,
      registers,
    }),
    conflicts: new Counter({
      name: 'crossfade_principal_conflicts_total',
      help: 'Requests that carried credentials of two principals.',
      labelNames: ['where'] as const,
      registers,
    }),
    upstreamTokens: createTally({
      name: 'crossfade_upstream_tokens_total',
      help: 'Answers of forward-auth for a service with upstream: jwt, by outcome: minted, kept, unavailable.',
      labelNames: ['service', 'outcome'] as const,
      registers,
    }),
    whoamiAnswers: new Counter({
      name: 'crossfade_whoami_answers_total',
      help: 'Questions to a legacy app of format http, by outcome: answered, nobody, failed.',
      labelNames: ['entry', 'outcome'] as const,
      registers,
    }),
    sessionAnswers: new Counter({
      name: 'crossfade_session_answered_for_bearer_total',
      help: 'Requests whose bearer could not be verified because keys are in doubt, answered by the cookie of the same session.',
      registers,
    }),
    instanceHeld: new Gauge({
      name: 'crossfade_instance_held',
      help: '1 while this instance answers exchange and refresh 503 because it fails where other instances do not.',
      registers,
    }),
    instanceNeedsOperator: new Gauge({
      name: 'crossfade_instance_needs_operator',
      help: '1 while it is held and only an operator can release it: crossfade release --instance.',
      registers,
    }),
    sessionsWithoutToken: new Counter({
      name: 'crossfade_sessions_without_token_total',
      help: 'Requests served by session at jwt-only because no token can be made from it, and refreshes with fewer roles than the session has, by why: token-too-large, at-its-end.',
      labelNames: ['client', 'reason'] as const,
      registers,
    }),
    exchanges: new Counter({
      name: 'crossfade_exchanges_total',
      help: 'Exchanges of a session for an access token, by outcome (granted, or the error code).',
      labelNames: ['client', 'outcome'] as const,
      registers,
    }),
    exchangeSeconds: new Histogram({
      name: 'crossfade_exchange_seconds',
      help: 'Time that an exchange took.',
      buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1],
      registers,
    }),
    grantSeconds: new Histogram({
      name: 'crossfade_grant_seconds',
      help: 'Time that an answer of the token endpoint took, by grant (exchange, refresh).',
      labelNames: ['grant'] as const,
      buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1],
      registers,
    }),
    buildInfo: new Gauge({
      name: 'crossfade_build_info',
      help: '1, with the release that runs, and the newest form of what stands in Redis that it reads.',
      labelNames: ['version', 'reads'] as const,
      registers,
    }),
    answers: new Counter({
      name: 'crossfade_endpoint_answers_total',
      help: 'Answers of the endpoints under http.basePath, by outcome (granted, or the error code).',
      labelNames: ['endpoint', 'outcome'] as const,
      registers,
    }),
    refreshes: new Counter({
      name: 'crossfade_refreshes_total',
      help: 'Refreshes, by outcome (rotated, repeated, or the error code).',
      labelNames: ['client', 'outcome'] as const,
      registers,
    }),
    waysBack: new Counter({
      name: 'crossfade_ways_back_total',
      help: 'Returns from a refresh token to a session, by outcome (live, restored, repeated, or the error code).',
      labelNames: ['client', 'outcome'] as const,
      registers,
    }),
    issued: new Counter({
      name: 'crossfade_issued_total',
      help: 'Tokens issued at a login, by outcome (granted, or the error code).',
      labelNames: ['client', 'outcome'] as const,
      registers,
    }),
    sessionsEnded: new Counter({
      name: 'crossfade_sessions_ended_total',
      help: 'Sessions that were ended with everything made from them, by how.',
      labelNames: ['reason'] as const,
      registers,
    }),
    logoutsIncomplete: new Counter({
      name: 'crossfade_logouts_incomplete_total',
      help: 'Logouts by token whose record no instance could find, because Redis has lost what was known: it is deleted when its cookie comes.',
      registers,
    }),
    familiesEnded: new Counter({
      name: 'crossfade_families_ended_total',
      help: 'Families of refresh tokens that were ended by themselves, by why.',
      labelNames: ['reason'] as const,
      registers,
    }),
    recordNews: new Counter({
      name: 'crossfade_record_news_total',
      help: 'Changes of watched records that were looked into, by what had become of the session.',
      labelNames: ['fate'] as const,
      registers,
    }),
    sessionsVanished: new Counter({
      name: 'crossfade_sessions_vanished_total',
      help: 'Records that are gone without having ended and not by a logout. Alert on it: Redis evicts, was flushed or was restarted.',
      registers,
    }),
    lateWrites: new Counter({
      name: 'crossfade_late_writes_refused_total',
      help: 'Writes of a session by a slow request that were refused because the session had ended in the meantime.',
      registers,
    }),
    lostWrites: new Counter({
      name: 'crossfade_lost_writes_total',
      help: 'Refreshes with a token that is newer than what Redis knew: Redis has lost a write. `redis` is `same` where neither the Redis node nor the connection to it has changed for an hour.',
      labelNames: ['redis'],
      registers,
    }),
    endsRewritten: new Counter({
      name: 'crossfade_ends_rewritten_total',
      help: 'Ends of sessions, families and persons that this instance wrote to Redis again, because Redis may have lost them.',
      registers,
    }),
    refusedBehind: new Counter({
      name: 'crossfade_tokens_refused_by_app_total',
      help: 'Requests with a good token that a handler of the app answered 401: it looks at the session only.',
      labelNames: ['client'],
      registers,
    }),
    cookiesWithoutPrincipal: new Counter({
      name: 'crossfade_cookies_without_principal_total',
      help: 'Session cookies that named no principal, by entry and reason.',
      labelNames: ['entry', 'reason'],
      registers,
    }),
    familiesLost: new Counter({
      name: 'crossfade_families_lost_total',
      help: 'Refreshes with a token of ours whose family Redis does not have: it was lost, or it ended unused earlier than its longest life. The client falls back to its session.',
      registers,
    }),
    watchedRecords: new Gauge({
      name: 'crossfade_watched_records',
      help: 'Records that this instance watches because tokens were made from them.',
      registers,
    }),
    trackingUp: new Gauge({
      name: 'crossfade_tracking_up',
      help: '1 while Redis tells of changed records; at 0 a logout of the legacy app alone is noticed at the next refresh.',
      labelNames: ['connection'] as const,
      registers,
    }),
    revocations: new Gauge({
      name: 'crossfade_revocations',
      help: 'Ends that are held in memory, by of what (session, family, person).',
      labelNames: ['of'] as const,
      registers,
    }),
    signatures: new Counter({
      name: 'crossfade_token_signatures_total',
      help: 'Signatures of tokens that were looked at, by outcome (good, bad): of tokens that are not remembered.',
      labelNames: ['outcome'] as const,
      registers,
    }),
    rememberedTokens: new Gauge({
      name: 'crossfade_remembered_tokens',
      help: 'Verified tokens that are remembered, as hashes. Where it stays near twice bearer.rememberedTokens, tokens may be verified again and again.',
      registers,
    }),
    eventLag: new Histogram({
      name: 'crossfade_event_lag_seconds',
      help: 'From an event of another instance, a revocation, to its being in force here. Compares two clocks.',
      buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30],
      registers,
    }),
    eventsReadAt: new Gauge({
      name: 'crossfade_events_read_timestamp_seconds',
      help: 'When the event stream was last heard. Alert when it is more than a few seconds ago: revocations of others arrive late.',
      registers,
    }),
    eventsRestored: new Counter({
      name: 'crossfade_events_restored_total',
      help: 'Events that were written again because Redis had come back without them.',
      registers,
    }),
    limited: new Counter({
      name: 'crossfade_limited_total',
      help: 'Requests that were answered 429, by what was counted.',
      labelNames: ['by'] as const,
      registers,
    }),
    nudges: new Counter({
      name: 'crossfade_nudges_total',
      help: 'Responses that told a client to exchange its session.',
      labelNames: ['client'] as const,
      registers,
    }),
    clamps: new Gauge({
      name: 'crossfade_clamps',
      help: 'Clamps that are in force, by who set them (operator, guardrail).',
      labelNames: ['by'] as const,
      registers,
    }),
    ownFaults: new Counter({
      name: 'crossfade_own_faults_total',
      help: 'What failed after authentication by the fault of the bridge, by what and why: what the guardrail counts.',
      labelNames: ['of', 'fault'] as const,
      registers,
    }),
    guardrailTrips: new Counter({
      name: 'crossfade_guardrail_trips_total',
      help: 'Times that the guardrail has held a cohort back. Alert on it.',
      labelNames: ['of'] as const,
      registers,
    }),
    shadowMints: new Counter({
      name: 'crossfade_shadow_mints_total',
      help: "Sessions that were minted as tokens off the request's path, by outcome.",
      labelNames: ['client', 'outcome'] as const,
      registers,
    }),
    observed: new Counter({
      name: 'crossfade_observed_total',
      help: 'Requests that were only observed, by what the bridge would have found (mode: observe).',
      labelNames: ['client', 'outcome'] as const,
      registers,
    }),
    mismatches: new Counter({
      name: 'crossfade_mismatches_total',
      help: 'Fields in which two principals of one request differ, by where they were compared (shadow, observe) and the code.',
      labelNames: ['where', 'code'] as const,
      registers,
    }),
    signingHealth: new Gauge({
      name: 'crossfade_signing_health',
      help: '1 for the state that signing is in, 0 for the others.',
      labelNames: ['state'] as const,
      registers,
    }),
    ringKeys: new Gauge({
      name: 'crossfade_keys',
      help: 'Keys in the ring by phase.',
      labelNames: ['phase'] as const,
      registers,
    }),
    rejectedKeyFiles: new Gauge({
      name: 'crossfade_key_files_rejected',
      help: 'Files in the key directory that are refused at the moment.',
      registers,
    }),
    fleetInstances: new Gauge({
      name: 'crossfade_fleet_instances',
      help: 'Instances that are alive, this one included, as it last read.',
      registers,
    }),
    fleetDiffers: new Gauge({
      name: 'crossfade_fleet_differs',
      help: '1 while the issuer or audience here is not that of most live instances: then this one does not sign.',
      registers,
    }),
    clockOffset: new Gauge({
      name: 'crossfade_clock_offset_seconds',
      help: 'How far the clock here is ahead of that of Redis.',
      registers,
    }),
    redisUp: new Gauge({
      name: 'crossfade_redis_up',
      help: '1 while a primary answers as it must; crossfade_redis_state says what it is else.',
      labelNames: ['connection'] as const,
      registers,
    }),
    redisState: new Gauge({
      name: 'crossfade_redis_state',
      help: '1 for what the connection is: up, away, or what Redis calls the reason for which it cannot be used (READONLY, MISCONF, ...).',
      labelNames: ['connection', 'state'] as const,
      registers,
    }),
    unavailable: new Counter({
      name: 'crossfade_unavailable_total',
      help: 'Requests that were answered 503 because the bridge could not know, by what it was waiting for.',
      labelNames: ['reason'] as const,
      registers,
    }),
    refusedValues: new Counter({
      name: 'crossfade_refused_values_total',
      help: 'Values in Redis that failed their MAC or version check and count as absent.',
      labelNames: ['key'] as const,
      registers,
    }),
    flagsUp: new Gauge({
      name: 'crossfade_flags_up',
      help: '1 while the flag source delivers, 0 while the last known flags are in force.',
      registers,
    }),
    flagEvaluations: new Counter({
      name: 'crossfade_flag_evaluations_total',
      help: 'Evaluations of the stage flag that were not remembered from before.',
      registers,
    }),
  };
}
