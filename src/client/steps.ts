/** What a client may ask the bridge for. */
export type Renewal = 'exchange' | 'refresh' | 'goBack';

/** What a renewal came to. `later`: the bridge could not say, and what is held stays good. */
export type Renewed = 'renewed' | 'ended' | 'later';

/** A request once its answer is there. */
export interface Answered {
  /** What the answer asks for; undefined: nothing. */
  readonly demand: Renewal | undefined;
  /** 401: without a renewal it is of no use. */
  readonly isRefused: boolean;
  /** Whether it was sent with a token. */
  readonly hadToken: boolean;
  /** Whether it must not be sent again. */
  readonly isLast: boolean;
  readonly isSignedOut: boolean;
  /** Whether a refresh has made a token for this request already. */
  readonly hasRefreshed: boolean;
}

/** The same after a renewal. */
export interface Renewing {
  readonly demand: Renewal;
  readonly outcome: Renewed;
  readonly hadToken: boolean;
  /** Whether the bridge said how long to wait, it is not too long, and nobody has waited yet. */
  readonly mayWait: boolean;
  /** Whether a return to the session was not tried yet. */
  readonly mayGoBack: boolean;
}

type Rule<State, Step> = readonly [step: Step, when: (state: State) => boolean];

/** The first that fits. `renew-beside`: the answer is good, and the next one shall be as well. */
const AFTER_ANSWER: readonly Rule<Answered, 'deliver' | 'renew-beside' | 'renew'>[] = [
  ['deliver', ({ demand, isLast }) => demand === undefined || isLast],
  ['deliver', ({ demand, isSignedOut }) => demand === 'refresh' && isSignedOut],
  ['renew-beside', ({ isRefused }) => !isRefused],
  // One that was just made is refused as well: that is for whoever refuses it to mend.
  ['deliver', ({ hadToken, hasRefreshed }) => hadToken && hasRefreshed],
  ['renew', () => true],
];

const AFTER_RENEWAL: readonly Rule<Renewing, 'send' | 'wait' | 'go-back' | 'sign-out' | 'deliver'>[] = [
  // Where a token was refused and none can be had, the cookie may do.
  ['send', ({ outcome, hadToken }) => outcome === 'renewed' || hadToken],
  ['wait', ({ outcome, mayWait }) => outcome === 'later' && mayWait],
  // Tokens cannot be had, and no cookie would do: a return makes one, where it is open.
  ['go-back', ({ demand, outcome, mayGoBack }) => demand === 'refresh' && outcome === 'later' && mayGoBack],
  ['sign-out', ({ demand, outcome }) => demand === 'refresh' && outcome === 'ended'],
  ['deliver', () => true],
];

export const afterAnswer = (answered: Answered) => firstOf(AFTER_ANSWER, answered);
export const afterRenewal = (renewing: Renewing) => firstOf(AFTER_RENEWAL, renewing);

function firstOf<State, Step>(rules: readonly Rule<State, Step>[], state: State): Step | 'deliver' {
  return rules.find(([, fits]) => fits(state))?.[0] ?? 'deliver';
}
