// A real OpenID provider for the tests: `node oidc_provider.mjs PORT AUDIENCE CLIENT`. Everybody may log in
// under any name.
import { exportJWK, generateKeyPair } from "jose";
import { Provider } from "oidc-provider";

const [port, audience, client] = process.argv.slice(2);
const { privateKey } = await generateKeyPair("ES384", { extractable: true });
const key = { ...(await exportJWK(privateKey)), use: "sig", alg: "ES384" };

const provider = new Provider(`http://127.0.0.1:${port}`, {
  jwks: { keys: [key] },
  enabledJWA: { idTokenSigningAlgValues: ["ES384"] },
  cookies: { keys: ["for the tests alone"] },
  clients: [
    {
      client_id: client,
      application_type: "native",
      token_endpoint_auth_method: "none",
      grant_types: ["urn:ietf:params:oauth:grant-type:device_code", "refresh_token"],
      response_types: [],
      redirect_uris: [],
      id_token_signed_response_alg: "ES384",
    },
  ],
  claims: { openid: ["sub"], profile: ["name"], email: ["email", "email_verified"] },
  findAccount: (_, id) => ({
    accountId: id,
    claims: () => ({ sub: id, name: `Name of ${id}`, email: `${id}@example.org`, email_verified: true }),
  }),
  features: {
    devInteractions: { enabled: true },
    deviceFlow: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => audience,
      useGrantedResource: () => true,
      getResourceServerInfo: (_, resource) => ({
        audience: resource,
        scope: "",
        accessTokenFormat: "jwt",
        jwt: { sign: { alg: "ES384" } },
      }),
    },
  },
});

provider.listen(Number(port), "127.0.0.1", () => console.log("listening"));
