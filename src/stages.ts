/** The stages of a migration, lowest first. */
export const STAGES = ['recall', 'session-only', 'shadow', 'dual', 'jwt-preferred', 'jwt-only'] as const;

export type Stage = (typeof STAGES)[number];

/** What must be true before a cohort goes on: a line of the checklist. */
export type CheckName = 'signing' | 'fleet' | 'clamps' | 'client' | 'shadow' | 'exchange' | 'refresh' | 'return' | 'refusals' | 'people' | 'versions';

/** What a stage decides. It decides what is issued next, never what happens to what was issued (law 5). */
export interface StageRules {
  /** `navigation`: for page navigations, at exchange and at logout; elsewhere the session must be exchanged first. */
  readonly session: 'accepted' | 'navigation';
  readonly exchange: boolean;
  /** `return`: a client that can return to its session is told to; all others go on. */
  readonly refresh: 'granted' | 'return';
  /** Whether a client may return to its session. */
  readonly wayBack: boolean;
  /** Whether some sessions are minted as tokens off the request's path, to see what would come of it. */
  readonly shadowMint?: boolean;
  /** What a client is told to do of its own accord. */
  readonly nudge?: 'forward' | 'back';
  /** The one that the bridge falls back to: nothing is issued, and nobody is told to do anything. */
  readonly isSafe?: true;
  /** What must be true before a cohort goes to it from the one below. The lowest needs nothing. */
  readonly needs: readonly CheckName[];
  /** What people are on at it: how the console shows it. */
  readonly tone: 'sessions' | 'tokens';
}

const CALM = ['signing', 'fleet', 'clamps'] as const;
const WORKS = ['exchange', 'refresh', 'return', 'refusals'] as const;

/** The one table of the stages. Nothing else in the code names one. */
export const STAGE_TABLE: Readonly<Record<Stage, StageRules>> = {
  recall: { session: 'accepted', exchange: false, refresh: 'return', wayBack: true, nudge: 'back', needs: [], tone: 'sessions' },
  'session-only': {
    session: 'accepted',
    exchange: false,
    refresh: 'granted',
    wayBack: true,
    isSafe: true,
    needs: ['signing', 'fleet'],
    tone: 'sessions',
  },
  shadow: { session: 'accepted', exchange: false, refresh: 'granted', wayBack: true, shadowMint: true, needs: CALM, tone: 'sessions' },
  dual: { session: 'accepted', exchange: true, refresh: 'granted', wayBack: true, needs: ['client', 'shadow', ...CALM], tone: 'tokens' },
  'jwt-preferred': {
    session: 'accepted',
    exchange: true,
    refresh: 'granted',
    wayBack: false,
    nudge: 'forward',
    needs: [...WORKS, ...CALM],
    tone: 'tokens',
  },
  'jwt-only': {
    session: 'navigation',
    exchange: true,
    refresh: 'granted',
    wayBack: false,
    nudge: 'forward',
    needs: ['people', 'versions', ...WORKS, ...CALM],
    tone: 'tokens',
  },
};

/** The highest stage of which this is true; the lowest of all where it is true of none. */
function highest(isMeant: (rules: StageRules) => boolean): Stage {
  return STAGES.findLast((stage) => isMeant(STAGE_TABLE[stage])) ?? STAGES[0];
}

/** What holds where nothing else is known to be good. */
export const SAFE_STAGE = highest(({ isSafe }) => isSafe === true);

/** As far as a client gets that does not exchange. */
export const HIGHEST_WITHOUT_EXCHANGE = highest(({ session }) => session === 'accepted');

export function isStage(value: unknown): value is Stage {
  return STAGES.some((stage) => stage === value);
}
