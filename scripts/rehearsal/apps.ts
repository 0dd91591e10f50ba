import * as oauth from 'oauth4webapi';
import { type ClientOptions, createClient } from '../../src/client/index.js';

/** What an app of the drill does with its credentials. All of them start on a session's cookie. */
export interface App {
  readonly kind: 'library' | 'oauth' | 'cookie';
  /** Asks for the page that needs somebody. */
  ask(): Promise<Response>;
  /** It holds tokens, or what renews them. */
  readonly hasTokens: boolean;
  /** Takes the cookie of a new login. */
  signedIn(): void;
}

/** Where an app lives: what it knows of the product, and its cookies. */
export interface AppPlace {
  readonly url: string;
  readonly version: string;
  readonly cookie: { value: string };
  /** As the global one; sees everything that goes out and comes back. */
  readonly fetch: typeof fetch;
}

const SAFETY_MS = 5000;
/** When it tries again what could not be done, and how often before it gives its user an error. */
const LATER_MS = 2000;
const MOST_TRIES = 8;
const REFUSED_MS = 10_000;

/** The app that was built for it: `crossfade-auth/client`. */
export function createLibraryApp({ url, version, cookie, fetch: send }: AppPlace, other?: Pick<ClientOptions, 'clientId' | 'headers'>): App {
  let isSignedOut = false;
  const client = createClient({
    baseUrl: url,
    clientId: 'app',
    headers: { 'user-agent': `DrillApp/${version}` },
    ...other,
    fetch: send,
    cookies: {
      get: () => cookie.value,
      set(lines) {
        cookie.value = lines.map((line) => line.split(';')[0] ?? '').join('; ');
      },
    },
  });
  client.addEventListener('state', () => {
    isSignedOut = client.state === 'signed-out';
  });
  return {
    kind: 'library',
    ask: async () => await client.fetch(`${url}/me`),
    get hasTokens() {
      return client.state === 'jwt' && !isSignedOut;
    },
    signedIn: () => client.signedIn(),
  };
}

/** An app that never learned to exchange. */
export function createCookieApp({ url, version, cookie, fetch: send }: AppPlace): App {
  return {
    kind: 'cookie',
    ask: async () => await send(`${url}/me`, { headers: { cookie: cookie.value, 'user-agent': `DrillKiosk/${version}` } }),
    hasTokens: false,
    signedIn: () => undefined,
  };
}

/** An app with an OAuth library off the shelf: it exchanges when it may, refreshes in time, and goes back to its cookie when it is refused. */
export function createOauthApp({ url, version, cookie, fetch: send }: AppPlace): App {
  const client: oauth.Client = { client_id: 'partner' };
  const server: oauth.AuthorizationServer = { issuer: url, token_endpoint: `${url}/auth/token` };
  const options = { [oauth.allowInsecureRequests]: true, [oauth.customFetch]: send };
  const headers = { 'user-agent': `DrillPartner/${version}` };
  let access: string | undefined;
  let refresh: string | undefined;
  let endsAt = 0;
  let notBefore = 0;

  function take(answer: oauth.TokenEndpointResponse): void {
    access = answer.access_token;
    refresh = answer.refresh_token;
    endsAt = Date.now() + (answer.expires_in ?? 0) * 1000;
  }

  /** What is refused for good is forgotten; the rest is tried again later. */
  async function attempt(work: () => Promise<oauth.TokenEndpointResponse>): Promise<void> {
    if (Date.now() < notBefore) return;
    try {
      take(await work());
    } catch (error) {
      if (error instanceof oauth.ResponseBodyError && error.error === 'invalid_grant') access = refresh = undefined;
      else notBefore = Date.now() + (error instanceof oauth.ResponseBodyError && error.status < 500 ? REFUSED_MS : LATER_MS);
    }
  }

  const exchange = () =>
    attempt(async () => {
      const form = { subject_token: cookie.value, subject_token_type: 'urn:crossfade:params:oauth:token-type:session' };
      const grant = 'urn:ietf:params:oauth:grant-type:token-exchange';
      return await oauth.processGenericTokenEndpointResponse(
        server,
        client,
        await oauth.genericTokenEndpointRequest(server, client, oauth.None(), grant, form, options),
      );
    });
  const renew = () =>
    attempt(async () => {
      const answer = await oauth.refreshTokenGrantRequest(server, client, oauth.None(), refresh ?? '', options);
      return await oauth.processRefreshTokenResponse(server, client, answer);
    });

  const isGood = () => access !== undefined && endsAt > Date.now();

  async function show(): Promise<Response> {
    return await send(`${url}/me`, { headers: { ...headers, ...(isGood() ? { authorization: `Bearer ${access}` } : { cookie: cookie.value }) } });
  }

  return {
    kind: 'oauth',
    async ask() {
      // Nothing but a refusal makes it go back to its cookie: the session of that one may be lost.
      for (let tries = 0; refresh !== undefined && endsAt - Date.now() < SAFETY_MS && tries < MOST_TRIES; tries++) {
        if (tries > 0 && isGood()) break;
        if (tries > 0) await new Promise((resolve) => setTimeout(resolve, LATER_MS));
        await renew();
      }
      // At `dual` nobody tells it to: it asks of its own accord, and not again soon where it is refused.
      if (refresh === undefined) await exchange();
      const answer = await show();
      if (!/\bexchange=/.test(answer.headers.get('auth-migration') ?? '')) return answer;
      for (let tries = 0; !isGood() && tries < MOST_TRIES; tries++) {
        if (tries > 0) await new Promise((resolve) => setTimeout(resolve, LATER_MS));
        await exchange();
        // Told to exchange first it has nothing else to show.
        if (answer.status !== 401) return answer;
      }
      return await show();
    },
    get hasTokens() {
      return refresh !== undefined;
    },
    signedIn() {
      access = refresh = undefined;
      notBefore = 0;
    },
  };
}
