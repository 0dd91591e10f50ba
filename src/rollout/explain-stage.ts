import { createHash } from 'node:crypto';
import type { LDEvaluationDetail, LDMultiKindContext } from 'launchdarkly-node-server-sdk';
import { z } from 'zod';

const rolloutSchema = z.looseObject({
  kind: z.string().optional(),
  contextKind: z.string().optional(),
  bucketBy: z.string().optional(),
  seed: z.number().optional(),
  variations: z.array(z.looseObject({ variation: z.number(), weight: z.number() })),
});
const ruleSchema = z.looseObject({ id: z.string().optional(), rollout: rolloutSchema.optional() });
const flagSchema = z.looseObject({
  key: z.string(),
  salt: z.string().default(''),
  variations: z.array(z.unknown()),
  rules: z.array(ruleSchema).default([]),
  fallthrough: ruleSchema.optional(),
});

/** Where a context falls in a percentage rollout. */
export interface BucketExplanation {
  /** `user.key`: what the share is taken of. */
  readonly by: string;
  /** 0 ≤ bucket < 1; undefined where the context has no such member, which counts as 0. */
  readonly bucket: number | undefined;
  /** What each share gives, in order, in percent. */
  readonly shares: readonly { readonly value: unknown; readonly percent: number }[];
}

/** How a flag came to its value. */
export interface FlagExplanation {
  readonly flag: string;
  readonly value: unknown;
  /** `rule 2 of 3`, `fallthrough`, `off`, … */
  readonly by: string;
  readonly bucket?: BucketExplanation;
}

/** Puts what LaunchDarkly's engine says of an evaluation beside what the flag itself says. */
export function explainFlag(
  key: string,
  { value, reason }: Pick<LDEvaluationDetail, 'value' | 'reason'>,
  context: LDMultiKindContext,
  raw: Readonly<Record<string, unknown>> | undefined,
): FlagExplanation {
  const flag = flagSchema.safeParse(raw).data;
  const rule = reason.kind === 'RULE_MATCH' ? flag?.rules[reason.ruleIndex ?? 0] : reason.kind === 'FALLTHROUGH' ? flag?.fallthrough : undefined;
  return {
    flag: key,
    value: value ?? null,
    by: describeReason(reason, flag?.rules.length),
    ...(flag && rule?.rollout ? { bucket: explainBucket(flag, rule.rollout, context) } : {}),
  };
}

function describeReason({ kind, ruleIndex = 0, ruleId, errorKind }: LDEvaluationDetail['reason'], rules: number | undefined): string {
  switch (kind) {
    case 'RULE_MATCH':
      return `rule ${ruleIndex + 1}${rules === undefined ? '' : ` of ${rules}`}${ruleId ? ` (${ruleId})` : ''}`;
    case 'FALLTHROUGH':
      return 'no rule: the fallthrough';
    case 'TARGET_MATCH':
      return 'a target by name';
    case 'OFF':
      return 'off';
    case 'PREREQUISITE_FAILED':
      return 'a prerequisite that failed';
    default:
      return errorKind === 'FLAG_NOT_FOUND' ? 'no such flag: the default stands' : `nothing (${errorKind ?? kind}): the default stands`;
  }
}

function explainBucket(flag: z.output<typeof flagSchema>, rollout: z.output<typeof rolloutSchema>, context: LDMultiKindContext): BucketExplanation {
  const kind = rollout.contextKind ?? 'user';
  // An experiment goes by the key alone; an attribute may be written as a reference.
  const attribute = rollout.kind === 'experiment' ? 'key' : (rollout.bucketBy ?? 'key').replace(/^\//, '');
  const part: unknown = context[kind];
  const value: unknown = part !== null && typeof part === 'object' ? Object.entries(part).find(([name]) => name === attribute)?.[1] : undefined;
  return {
    by: `${kind}.${attribute}`,
    bucket: typeof value === 'string' || typeof value === 'number' ? bucketOf(flag, rollout.seed, String(value)) : undefined,
    shares: rollout.variations.map(({ variation, weight }) => ({ value: flag.variations[variation], percent: weight / 1000 })),
  };
}

/** As LaunchDarkly's engine does it. */
function bucketOf({ key, salt }: { key: string; salt: string }, seed: number | undefined, value: string): number {
  const prefix = seed === undefined ? `${key}.${salt}` : String(seed);
  const hash = createHash('sha1').update(`${prefix}.${value}`).digest('hex').slice(0, 15);
  return Number.parseInt(hash, 16) / 2 ** 60;
}
