//! The attribute `async_test`, which the tests of redis-rs use and which is not published with them.
//!
//! From `async fn NAME(...)` it makes ordinary tests that run it on Tokio. What the function takes says which: nothing;
//! a `bool`, for both values; or a connection, for each of the two kinds that redis-rs has.

use proc_macro::{Delimiter, TokenStream, TokenTree};

#[proc_macro_attribute]
pub fn async_test(_attribute: TokenStream, function: TokenStream) -> TokenStream {
    let (name, parameters) = signature(function.clone());
    let tests = if parameters.is_empty() {
        test(&name, "", &format!("{name}().await"))
    } else if parameters.ends_with(": bool") {
        [true, false].map(|value| test(&format!("{name}_{value}"), "", &format!("{name}({value}).await"))).concat()
    } else {
        let connect = |kind, expression| {
            let context = "let context = TestContext::new();";
            test(&format!("{kind}_{name}"), context, &format!("{name}(context.{expression}.await.unwrap()).await"))
        };
        connect("multiplexed", "async_connection()") + &connect("manager", "client.get_connection_manager()")
    };
    let mut all = function;
    all.extend(tests.parse::<TokenStream>());
    all
}

/// The function's name and its parameters.
fn signature(function: TokenStream) -> (String, String) {
    let mut tokens = function.into_iter();
    let is_fn = |token: TokenTree| matches!(token, TokenTree::Ident(word) if word.to_string() == "fn");
    tokens.by_ref().find(|token| is_fn(token.clone()));
    let name = tokens.next().map(|token| token.to_string()).unwrap_or_default();
    let parameters = tokens.find_map(|token| match token {
        TokenTree::Group(group) if group.delimiter() == Delimiter::Parenthesis => Some(group.stream().to_string()),
        _ => None,
    });
    (name, parameters.unwrap_or_default())
}

fn test(name: &str, before: &str, call: &str) -> String {
    format!(
        "#[test] fn on_tokio_{name}() -> impl std::process::Termination {{ {before} block_on_all(async move {{ {call} }}, RuntimeType::Tokio) }}"
    )
}
