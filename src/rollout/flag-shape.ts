import { z } from 'zod';

const variationOrRollout = z.looseObject({
  variation: z.int().nonnegative().nullish(),
  rollout: z
    .looseObject({ variations: z.array(z.looseObject({ variation: z.int().nonnegative(), weight: z.int().nonnegative() })).min(1) })
    .nullish(),
});
const clause = z.looseObject({ attribute: z.string(), op: z.string(), values: z.array(z.unknown()) });
const target = z.looseObject({ values: z.array(z.string()), variation: z.int().nonnegative() });

/**
 * A flag in LaunchDarkly's data model, as far as evaluation depends on it. One that is not of this shape evaluates to nothing, or
 * throws inside the SDK: it is refused, and the one before stays in force.
 */
export const flagSchema = z
  .looseObject({
    version: z.int().nonnegative().default(1),
    on: z.boolean().default(false),
    variations: z.array(z.unknown()).min(1),
    offVariation: z.int().nonnegative().nullish(),
    fallthrough: variationOrRollout,
    rules: z.array(variationOrRollout.extend({ clauses: z.array(clause) })).nullish(),
    targets: z.array(target).nullish(),
    contextTargets: z.array(target).nullish(),
    prerequisites: z.array(z.looseObject({ key: z.string(), variation: z.int().nonnegative() })).nullish(),
  })
  .refine((flag) => usedVariations(flag).every((variation) => variation < flag.variations.length), 'names a variation that it does not have')
  .refine(({ fallthrough }) => typeof fallthrough.variation === 'number' || fallthrough.rollout, {
    path: ['fallthrough'],
    error: 'needs a variation or a rollout',
  });

export const segmentSchema = z.looseObject({
  version: z.int().nonnegative().default(1),
  included: z.array(z.string()).nullish(),
  excluded: z.array(z.string()).nullish(),
  rules: z.array(z.looseObject({ clauses: z.array(clause) })).nullish(),
});

type Choice = z.output<typeof variationOrRollout>;

function usedVariations(flag: {
  offVariation?: number | null | undefined;
  fallthrough: Choice;
  rules?: readonly Choice[] | null | undefined;
  targets?: readonly { variation: number }[] | null | undefined;
  contextTargets?: readonly { variation: number }[] | null | undefined;
}): number[] {
  const choices = [flag.fallthrough, ...(flag.rules ?? [])].flatMap(({ variation, rollout }) => [
    ...(typeof variation === 'number' ? [variation] : []),
    ...(rollout?.variations.map((weighted) => weighted.variation) ?? []),
  ]);
  const targeted = [...(flag.targets ?? []), ...(flag.contextTargets ?? [])].map(({ variation }) => variation);
  return [...choices, ...targeted, ...(typeof flag.offVariation === 'number' ? [flag.offVariation] : [])];
}
