import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';

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
    requests: new Counter({
      name: 'crossfade_requests_total',
      help: 'Requests that were authenticated, by the credential that decided and the outcome.',
      labelNames: ['credential', 'outcome', 'client'] as const,
      registers,
    }),
    rejections: new Counter({
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
    sessionAnswers: new Counter({
      name: 'crossfade_session_answered_for_bearer_total',
      help: 'Requests whose bearer could not be verified because keys are in doubt, answered by the cookie of the same session.',
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
    nudges: new Counter({
      name: 'crossfade_nudges_total',
      help: 'Responses that told a client to exchange its session.',
      labelNames: ['client'] as const,
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
    redisUp: new Gauge({
      name: 'crossfade_redis_up',
      help: '1 while the connection is ready.',
      labelNames: ['connection'] as const,
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
