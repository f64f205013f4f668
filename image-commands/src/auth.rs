//! `rcopy auth`: credentials and tokens.

use app::place::Access;
use app::{App, Runnable};
use clap::{Args, Subcommand};
use options::Failure;
use options::ends::OneEnd;
use options::place::location;
use serde_json::json;
use task::Kind;
use transport::Location;

use crate::account::{Login, Logout};

/// Log in and out, and get tokens for other programs
#[derive(Debug, Args)]
pub struct Auth {
    #[command(subcommand)]
    command: AuthSubcommand,
}

#[derive(Debug, Subcommand)]
enum AuthSubcommand {
    Login(Login),
    Logout(Logout),
    Token(Token),
}

impl Runnable for Auth {
    fn run(self, app: &App) -> Result<u8, Failure> {
        match self.command {
            AuthSubcommand::Login(login) => login.run(app),
            AuthSubcommand::Logout(logout) => logout.run(app),
            AuthSubcommand::Token(token) => token.run(app),
        }
    }
}

/// Print a token for other programs, such as curl
#[derive(Debug, Args)]
struct Token {
    /// The repository
    repository: String,
    /// Request a token that allows pushes
    #[arg(long)]
    push: bool,
    /// Print it as a header: Authorization: Bearer …
    #[arg(short = 'H', long)]
    header: bool,
    #[command(flatten)]
    end: OneEnd,
}

impl Token {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let at = location(&self.repository, "docker://")?;
        let Location::Registry(reference) = &at else {
            return Err(Failure::usage(format!("{at} is in no registry")));
        };
        let repo = Access::new(app, self.end.reach_at(&at)?).client()?.repo(&reference.repository);
        let authorization = app.wait(repo.authorization(self.push))??;
        let Some(authorization) = authorization else {
            let what = format!("{} needs no token", reference.repository.registry());
            return Err(Failure::new(Kind::NotFound, what));
        };
        if self.header {
            outln!("Authorization: {authorization}");
            return Ok(0);
        }
        match authorization.strip_prefix("Bearer ") {
            Some(token) => outln!("{}", json!({"token": token})),
            None => {
                let what = format!(
                    "{} accepts a user name and password, not a token",
                    reference.repository.registry()
                );
                return Err(
                    Failure::new(Kind::Refused, what).hint("use --header for a matching header")
                );
            }
        }
        Ok(0)
    }
}
