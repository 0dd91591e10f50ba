import * as oauth from 'oauth4webapi';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Service, startService } from '../support/serve.js';
import { rememberRefresh, SESSION_TYPE, TOKEN_EXCHANGE } from '../support/tokens.js';
import { rememberToken } from '../support/transcript.js';
import { AUDIENCE, CLIENT_SECRETS, createWorld, type World } from '../support/world.js';

let world: World;
let service: Service;
beforeAll(async () => {
  world = await createWorld();
  service = await startService(world);
});
afterAll(async () => {
  await service.stop();
  await world.close();
});

/** The one allowance: http, since this is loopback. */
const loopback = { [oauth.allowInsecureRequests]: true };

function remember({ access_token: access, refresh_token: refresh }: oauth.TokenEndpointResponse): void {
  rememberToken(access);
  if (refresh) rememberRefresh(refresh);
}

describe('oauth4webapi against crossfade serve', () => {
  it('discovers, exchanges, refreshes, introspects, revokes and validates, with nothing special for us', async () => {
    const issuer = new URL(service.url);
    const as = await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...loopback }));
    const client: oauth.Client = { client_id: 'android' };
    const cookie = await world.login('alice');

    const exchange = await oauth.genericTokenEndpointRequest(
      as,
      client,
      oauth.None(),
      TOKEN_EXCHANGE,
      { subject_token: cookie, subject_token_type: SESSION_TYPE },
      loopback,
    );
    const exchanged = await oauth.processGenericTokenEndpointResponse(as, client, exchange);
    remember(exchanged);
    expect(exchanged).toMatchObject({ token_type: 'bearer', expires_in: 600, issued_token_type: 'urn:ietf:params:oauth:token-type:access_token' });

    const refresh = await oauth.refreshTokenGrantRequest(as, client, oauth.None(), exchanged.refresh_token ?? '', loopback);
    const refreshed = await oauth.processRefreshTokenResponse(as, client, refresh);
    remember(refreshed);
    expect(refreshed.refresh_token).not.toBe(exchanged.refresh_token);

    const request = new Request(`${service.url}/orders`, { headers: { authorization: `Bearer ${refreshed.access_token}` } });
    const claims = await oauth.validateJwtAccessToken(as, request, AUDIENCE, loopback);
    expect(claims).toMatchObject({ sub: 'u-alice', client_id: 'android' });

    const api: oauth.Client = { client_id: 'orders-api' };
    const introspect = async () =>
      await oauth.processIntrospectionResponse(
        as,
        api,
        await oauth.introspectionRequest(as, api, oauth.ClientSecretBasic(CLIENT_SECRETS['orders-api']), refreshed.access_token, loopback),
      );
    expect(await introspect()).toMatchObject({ active: true, sub: 'u-alice', aud: AUDIENCE });

    await oauth.processRevocationResponse(await oauth.revocationRequest(as, client, oauth.None(), refreshed.refresh_token ?? '', loopback));
    expect(await introspect()).toEqual({ active: false });
    await expect(
      oauth
        .refreshTokenGrantRequest(as, client, oauth.None(), refreshed.refresh_token ?? '', loopback)
        .then(async (response) => await oauth.processRefreshTokenResponse(as, client, response)),
    ).rejects.toMatchObject({ name: 'ResponseBodyError', error: 'invalid_grant', status: 400 });
  });

  it('authenticates with a secret in the form as well, and is refused with a wrong one', async () => {
    const issuer = new URL(service.url);
    const as = await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...loopback }));
    const api: oauth.Client = { client_id: 'orders-api' };
    const ask = async (auth: oauth.ClientAuth) =>
      await oauth.processIntrospectionResponse(as, api, await oauth.introspectionRequest(as, api, auth, 'garbage', loopback));
    expect(await ask(oauth.ClientSecretPost(CLIENT_SECRETS['orders-api']))).toEqual({ active: false });
    await expect(ask(oauth.ClientSecretBasic('wrong'))).rejects.toMatchObject({ status: 401 });
  });
});
