// A real OpenID Connect server for tests: oidc-provider, over TLS, on a free port of the loopback.
// node provider.mjs CERTIFICATE KEY REDIRECT_URI CLIENT_ID CLIENT_SECRET ALGORITHM → prints its issuer, then serves.
import { createServer } from 'node:https';
import { readFileSync } from 'node:fs';
import { generateKeyPairSync } from 'node:crypto';
import { Provider } from 'oidc-provider';

const [certificate, key, redirectUri, clientId, clientSecret, algorithm] = process.argv.slice(2);

const pair = algorithm === 'ES256' ? generateKeyPairSync('ec', { namedCurve: 'P-256' }) : generateKeyPairSync('rsa', { modulusLength: 2048 });
const jwk = { ...pair.privateKey.export({ format: 'jwk' }), alg: algorithm, use: 'sig', kid: 'interop' };

const server = createServer({ cert: readFileSync(certificate), key: readFileSync(key) });
server.listen(0, '127.0.0.1', () => {
  const issuer = `https://localhost:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: [{
      client_id: clientId,
      client_secret: clientSecret || undefined,
      token_endpoint_auth_method: clientSecret ? 'client_secret_basic' : 'none',
      redirect_uris: [redirectUri],
      grant_types: ['authorization_code'],
      response_types: ['code'],
      id_token_signed_response_alg: algorithm,
    }],
    jwks: { keys: [jwk] },
    cookies: { keys: ['interop'] },
    claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['preferred_username', 'groups'] },
    // Whoever logs in is who they say they are; the person named unverified has an address that nobody checked.
    findAccount: (_, sub) => ({
      accountId: sub,
      claims: () => ({ sub, email: sub, email_verified: !sub.startsWith('unverified'), preferred_username: sub, groups: ['staff'] }),
    }),
    pkce: { required: () => true },
  });
  server.on('request', provider.callback());
  console.log(issuer);
});

// The test holds the other end of standard input: it is gone, and so are we.
process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
