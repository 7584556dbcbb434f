// Plays Maskinporten: oidc-provider with the JWT grant (RFC 7523) as Maskinporten describes it.
//
// play_maskinporten.cjs serve <port>     reads its settings as JSON from the file named next, and serves until it is killed
// play_maskinporten.cjs verify <issuer>  reads a token on stdin, holds it against the issuer's keys and prints its claims
const fs = require('node:fs');
const { SignJWT, createLocalJWKSet, createRemoteJWKSet, importJWK, jwtVerify } = require('jose');

const grant = 'urn:ietf:params:oauth:grant-type:jwt-bearer';
const known = new Set(['aud', 'iss', 'scope', 'iat', 'exp', 'jti', 'consumer_org', 'resource']);

function serve(port, { organisation, scopes, key, client }) {
  const { Provider, errors } = require('oidc-provider');
  const issuer = `http://127.0.0.1:${port}`;
  const provider = new Provider(issuer, {
    clients: [{
      client_id: 'klient', token_endpoint_auth_method: 'none', grant_types: [grant], response_types: [], redirect_uris: [],
    }],
    jwks: { keys: [key] },
    scopes: [],
    clientAuthMethods: ['none'],
    routes: { token: '/token', jwks: '/jwk' },
    features: { devInteractions: { enabled: false } },
  });
  // Who asks stands in the assertion alone.
  provider.use(async (ctx, next) => {
    if (ctx.path === '/token') {
      const chunks = [];
      for await (const chunk of ctx.req) chunks.push(chunk);
      const form = Object.fromEntries(new URLSearchParams(Buffer.concat(chunks).toString()));
      const [, claims] = (form.assertion ?? '').split('.');
      const { iss } = claims ? JSON.parse(Buffer.from(claims, 'base64url')) : {};
      ctx.req.body = { ...form, client_id: iss };
    }
    await next();
  });
  const used = new Set();
  const registered = createLocalJWKSet({ keys: [client] });
  provider.registerGrantType(grant, async (ctx) => {
    const refused = (why) => new errors.InvalidGrant(why);
    const rules = { issuer: ctx.oidc.client.clientId, audience: issuer, algorithms: ['RS256', 'RS384', 'RS512'], requiredClaims: ['exp', 'iat', 'jti'] };
    const { payload, protectedHeader } = await jwtVerify(ctx.oidc.params.assertion, registered, rules).catch((error) => {
      throw refused(error.message);
    });
    if (!protectedHeader.kid) throw refused('kid');
    if (payload.exp - payload.iat > 120) throw refused('exp');
    if (!Object.keys(payload).every((name) => known.has(name))) throw new errors.InvalidRequest('unknown claim');
    if (used.has(payload.jti)) throw refused('jti');
    used.add(payload.jti);
    if (!payload.scope || !payload.scope.split(' ').every((scope) => scopes.includes(scope))) throw new errors.InvalidScope('scope', payload.scope);
    const party = (number) => ({ authority: 'iso6523-actorid-upis', ID: `0192:${number}` });
    const delegated = payload.consumer_org && { supplier: party(organisation) };
    const claims = { scope: payload.scope, client_id: payload.iss, consumer: party(payload.consumer_org ?? organisation), ...delegated };
    const token = new SignJWT({ ...claims, ...(payload.resource && { aud: payload.resource }) });
    token.setProtectedHeader({ alg: 'RS256', kid: key.kid }).setIssuer(issuer).setIssuedAt().setExpirationTime('120s').setJti(payload.jti);
    ctx.body = { access_token: await token.sign(await importJWK(key, 'RS256')), token_type: 'Bearer', expires_in: 119, scope: payload.scope };
  }, ['assertion']);
  provider.on('grant.success', () => console.log('granted'));
  provider.on('grant.error', (ctx, error) => console.log('refused', error.error, error.error_detail, error.error_description));
  provider.on('server_error', (ctx, error) => console.error(error));
  provider.listen(port, '127.0.0.1');
}

const [what, where, settings] = process.argv.slice(2);
if (what === 'verify') {
  const token = fs.readFileSync(0, 'utf8');
  const keys = createRemoteJWKSet(new URL(`${where}/jwk`));
  jwtVerify(token, keys, { issuer: where, algorithms: ['RS256'] }).then(({ payload }) => console.log(JSON.stringify(payload)));
} else {
  serve(Number(where), JSON.parse(fs.readFileSync(settings, 'utf8')));
}
