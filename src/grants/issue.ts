import { epochSeconds } from '../clock.js';
import type { ClientConfig, Config } from '../config/config.js';
import type { Persons } from '../endings/person.js';
import { CrossfadeError, unavailable } from '../errors.js';
import { tokenPrincipal } from '../principal.js';
import type { RandomSource } from '../random.js';
import type { ClientRegistry } from '../rollout/clients.js';
import { toIdentity } from '../sessions/identity.js';
import type { Grant } from '../tokens/grant.js';
import type { FrameAttempt } from './attempt.js';
import type { GrantCommand, GrantedTokens } from './command.js';
import type { Granting } from './granting.js';
import { withNewFamily } from './new-family.js';
import { unusedEnd } from './sign.js';

/** Who has logged in, as the app knows. */
export interface IssuePrincipal {
  readonly subject: string;
  readonly tenant?: string;
  readonly roles?: readonly string[];
  readonly scope?: readonly string[];
  /** Seconds since the epoch. Default: now. */
  readonly authTime?: number;
}

export interface IssueOptions {
  /** Id of the registered client that the tokens are for. */
  readonly client: string;
  /** One of the config's audiences or services. Default: the first audience. */
  readonly audience?: string;
}

/** Tokens at a login. `sid`: what takes the place of a session. */
export interface IssuedGrant extends GrantedTokens {
  readonly refreshToken: string;
  readonly client: ClientConfig;
  readonly sid: string;
}

/**
 * Tokens for a login that the app has done without a session. A refresh repeats the principal as it is given here.
 * @throws {CrossfadeError} `unauthorized_client`, `invalid_target`, `invalid_request`, `temporarily_unavailable`.
 */
export type IssueGrant = (principal: IssuePrincipal, options: IssueOptions, assertInTime?: GrantCommand['assertInTime']) => Promise<IssuedGrant>;

export interface IssueGrantOptions extends Granting {
  readonly frameAttempt: FrameAttempt;
  readonly audience: Config['audience'];
  readonly services: Config['services'];
  readonly clients: ClientRegistry;
  readonly persons: Pick<Persons, 'note'>;
  readonly random: RandomSource;
}

const SID_BYTES = 24;

export function createIssueGrant(options: IssueGrantOptions): IssueGrant {
  const { frameAttempt, lives, clients, sign, random, clock, audit } = options;
  const targets = new Set([...options.audience, ...options.services.map(({ audience }) => audience)]);

  async function issue(
    given: IssuePrincipal,
    { client: id, audience = options.audience[0] ?? '' }: IssueOptions,
    assertInTime: GrantCommand['assertInTime'],
  ): Promise<IssuedGrant> {
    const client = clients.byId(id);
    if (!client) throw new CrossfadeError('unauthorized_client', { message: `no client ${id} is registered` });
    if (!targets.has(audience)) throw new CrossfadeError('invalid_target');
    const mapped = toIdentity({ ...given, authTime: given.authTime ?? clock.now() }, (member) => member);
    if ('rejected' in mapped) throw new CrossfadeError('invalid_request', { message: mapped.why });
    const { identity } = mapped;
    const grant: Grant = {
      client: id,
      audience,
      identity,
      narrowed: false,
      hasSession: false,
      endsAt: epochSeconds(clock) + lives.refreshAbsoluteSeconds,
      idleSeconds: lives.refreshIdleSeconds,
    };
    if (!options.canSign()) throw unavailable('signing');
    const sid = random.token(SID_BYTES);
    const { scope } = identity;
    const refuse = (message: string) => new CrossfadeError('invalid_request', { message });
    const { access, family, token } = await withNewFamily(options, {
      sid,
      grant,
      sealedSession: '',
      refusedBy: ({ notBefore }) =>
        (identity.authTimeMs ?? 0) <= notBefore ? refuse('authTime: this login is older than the end of its person') : undefined,
      refusedSince: () => refuse('the person was ended at this moment'),
      async finish(opened) {
        const signed = await sign(tokenPrincipal(identity, { sid, client: id, scope }), opened.family, grant);
        assertInTime();
        return { access: signed, ...opened };
      },
    });
    audit('tokens.issued', { client: id, sid, family, audience });
    return { access, refreshToken: token, scope, unusedEnd: unusedEnd(grant, clock), client, sid };
  }

  return async function issueGrant(principal, request, assertInTime = () => undefined) {
    return await frameAttempt('issue', async (attempt) => {
      const client = clients.byId(request.client);
      if (client) attempt.client = client;
      return { outcome: 'granted', ...(await issue(principal, request, assertInTime)) };
    });
  };
}
