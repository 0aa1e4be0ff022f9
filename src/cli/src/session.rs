//! Asking the gateway, as whoever we are: with a key, or with tokens that are renewed when it is time.

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokenroute_api::auth::Discovery;

use crate::address::Address;
use crate::brand;
use crate::credentials::{Credentials, Session, Tokens};
use crate::failure::Failure;
use crate::login;
use crate::network::{Answer, Content, Method, Network, Request};
use crate::secret::Secret;
use crate::surroundings::Clock;

/// What a command works with.
pub(crate) struct World<'a> {
    /// The way out.
    pub(crate) network: &'a dyn Network,
    /// What time it is.
    pub(crate) clock: &'a dyn Clock,
    /// What is kept between runs.
    pub(crate) credentials: Credentials,
    /// The gateway's management plane.
    pub(crate) gateway: Address,
    /// The key that the environment names.
    pub(crate) key: Option<Secret>,
}

/// As whom we ask.
#[derive(Clone, Debug)]
pub(crate) enum Holder {
    /// As whoever has this key.
    Key(Secret),
    /// As who has logged in.
    Session(Session),
}

impl World<'_> {
    /// The gateway's address, which tokens and keys are kept by.
    pub(crate) fn api_url(&self) -> &str {
        self.gateway.text()
    }

    /// Where the device flow is done and models are called.
    pub(crate) fn discovery(&self) -> Result<Discovery, Failure> {
        let address = self.gateway.at("/api/v1/auth/discovery");
        let answer = self.send(&Request {
            method: Method::Get,
            address: &address,
            bearer: None,
            content: Content::Nothing,
        })?;
        read(&answer)
    }

    /// What an SDK takes for its base URL.
    pub(crate) fn inference(&self) -> Result<Address, Failure> {
        let base = self.discovery()?.inference_base_url;
        Address::parse_base(&base).map_err(|why| {
            Failure::unreadable(&format!("the address where models are called ({why})"))
        })
    }

    /// A key to call models with: the one that was named, the environment's, or the last that was created.
    pub(crate) fn inference_key(&self, named: Option<&str>) -> Result<Secret, Failure> {
        if let Some(named) = named {
            return Secret::parse(named).ok_or_else(|| {
                Failure::input("key", "--key is no key: it has spaces or is empty")
            });
        }
        if let Some(key) = &self.key {
            return Ok(key.clone());
        }
        self.credentials.last_key(self.api_url())?.ok_or_else(|| {
            let message = format!(
                "there is no API key for {}: {} keys create --name NAME makes one, or set {}",
                self.gateway.host(),
                brand::NAME,
                brand::API_KEY
            );
            Failure::anonymous("no_key", message)
        })
    }

    /// Who reads balance, usage and models: whoever the environment names, who has logged in, or the last key.
    pub(crate) fn reader(&self) -> Result<Holder, Failure> {
        if let Some(key) = &self.key {
            return Ok(Holder::Key(key.clone()));
        }
        if let Some(session) = self.credentials.session(self.api_url())? {
            return Ok(Holder::Session(session));
        }
        let last = self.credentials.last_key(self.api_url())?;
        last.map(Holder::Key).ok_or_else(|| self.nobody())
    }

    /// Who manages keys and credit: who has logged in; else the environment's key, which the gateway judges.
    pub(crate) fn manager(&self) -> Result<Holder, Failure> {
        let session = self.credentials.session(self.api_url())?.map(Holder::Session);
        session.or_else(|| self.key.clone().map(Holder::Key)).ok_or_else(|| self.nobody())
    }

    fn nobody(&self) -> Failure {
        let (host, name) = (self.gateway.host(), brand::NAME);
        let message = format!("not logged in at {host}: {name} login, or set {}", brand::API_KEY);
        Failure::anonymous("not_logged_in", message)
    }

    /// Reads `path`.
    pub(crate) fn get<T: DeserializeOwned>(
        &self,
        holder: &Holder,
        path: &str,
    ) -> Result<T, Failure> {
        read(&self.ask(holder, Method::Get, path, &Content::Nothing)?)
    }

    /// Posts `content` to `path`.
    pub(crate) fn post<T: DeserializeOwned>(
        &self,
        holder: &Holder,
        path: &str,
        content: &impl Serialize,
    ) -> Result<T, Failure> {
        let text = serde_json::to_string(content)
            .map_err(|_| Failure::input("input", "it cannot be written as JSON"))?;
        read(&self.ask(holder, Method::Post, path, &Content::Json(text))?)
    }

    /// Takes away what is at `path`.
    pub(crate) fn delete(&self, holder: &Holder, path: &str) -> Result<(), Failure> {
        self.ask(holder, Method::Delete, path, &Content::Nothing).map(|_| ())
    }

    fn ask(
        &self,
        holder: &Holder,
        method: Method,
        path: &str,
        content: &Content,
    ) -> Result<Answer, Failure> {
        let address = self.gateway.at(path);
        let with = |bearer: &Secret| {
            let content = content.clone();
            self.network
                .send(&Request { method, address: &address, bearer: Some(bearer), content })
                .map_err(|unreachable| Failure::network(address.host(), &unreachable))
        };
        let mut holder = holder.clone();
        if let Holder::Session(session) = &holder
            && session.is_stale(self.clock.now_seconds())
        {
            holder = Holder::Session(self.renew(session)?);
        }
        let answer = with(holder.secret())?;
        if let (401, Holder::Session(session)) = (answer.status, &holder)
            && session.refresh_token.is_some()
        {
            // The gateway knows better than our clock: once more, with a new token.
            let renewed = self.renew(session)?;
            return checked(with(&renewed.access_token)?, &renewed.access_token);
        }
        checked(answer, holder.secret())
    }

    /// Renews a login, unless another process has in the meantime: a refresh token works once.
    fn renew(&self, stale: &Session) -> Result<Session, Failure> {
        let _lock = self.credentials.lock(self.clock)?;
        let session = self.credentials.session(self.api_url())?.ok_or_else(|| self.nobody())?;
        if session.access_token != stale.access_token {
            return Ok(session);
        }
        let Some(refresh_token) = &session.refresh_token else { return Err(self.login_again()) };
        let endpoint = login::endpoint(&session.token_endpoint)?;
        let fields = vec![
            ("grant_type", "refresh_token".to_owned()),
            ("refresh_token", refresh_token.reveal().to_owned()),
            ("client_id", session.client_id.clone()),
            ("resource", session.resource.clone()),
        ];
        let answer = login::post(self.network, &endpoint, fields)
            .map_err(|unreachable| Failure::network(endpoint.host(), &unreachable))?;
        if answer.status != 200 {
            if login::word(&answer) == "invalid_grant" {
                self.credentials.keep_session(self.api_url(), None)?;
                return Err(self.login_again());
            }
            return Err(Failure::answered(&answer));
        }
        let tokens = Tokens::parse(&answer.body)
            .ok_or_else(|| Failure::unreadable("the issuer's new token"))?;
        let renewed = session.renewed(tokens, self.clock.now_seconds());
        self.credentials.keep_session(self.api_url(), Some(renewed.clone()))?;
        Ok(renewed)
    }

    fn login_again(&self) -> Failure {
        let message =
            format!("the login at {} has ended: {} login", self.gateway.host(), brand::NAME);
        Failure::anonymous("login_expired", message)
    }

    /// Sends a request to the gateway.
    pub(crate) fn send(&self, request: &Request<'_>) -> Result<Answer, Failure> {
        self.network
            .send(request)
            .map_err(|unreachable| Failure::network(request.address.host(), &unreachable))
    }
}

impl Holder {
    fn secret(&self) -> &Secret {
        match self {
            Self::Key(key) => key,
            Self::Session(session) => &session.access_token,
        }
    }
}

/// An answer that is yes; its failure shows nothing of `secret`, even if the server does.
pub(crate) fn checked(answer: Answer, secret: &Secret) -> Result<Answer, Failure> {
    if (200..300).contains(&answer.status) {
        return Ok(answer);
    }
    let mut failure = Failure::answered(&answer);
    failure.message = secret.hide_in(&failure.message);
    Err(failure)
}

/// What the answer says.
fn read<T: DeserializeOwned>(answer: &Answer) -> Result<T, Failure> {
    if !(200..300).contains(&answer.status) {
        return Err(Failure::answered(answer));
    }
    serde_json::from_slice(&answer.body).map_err(|_| Failure::unreadable("the answer"))
}
