//! Which path is asked of a replica for which path of a caller, and what has no path at all.

use http::{Method, Request};

use crate::support::{CNAME, Environment, Replica, SCORE, empty, get, post, request};

#[tokio::test]
async fn a_call_reaches_the_replica_and_its_answer_the_caller() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).start();
    for mut caller in front.both().await {
        let reply = caller.call(post(SCORE, "[1, 2]")).await;
        assert_eq!((reply.status, reply.text()), (200, "[1, 2]"));
    }
    assert_eq!(replica.requests()[0].line(), "POST /score HTTP/1.1");
}

#[tokio::test]
async fn the_prefix_becomes_the_path_of_the_deployments_protocol() {
    for (keys, score, health) in [
        ("", "/score", "/"),
        ("protocol = 'azureml'", "/score", "/"),
        ("protocol = 'mlflow'", "/invocations", "/ping"),
        ("protocol = 'sagemaker'", "/invocations", "/ping"),
        ("protocol = 'kserve-v1'", "/v1/models/iris:predict", "/v1/models/iris"),
        ("protocol = 'kserve-v2'", "/v2/models/iris/infer", "/v2/models/iris/ready"),
        ("protocol = 'kserve-v2'\nmodel = 'flowers'", "/v2/models/flowers/infer", "/v2/models/flowers/ready"),
        ("protocol = 'tfserving'", "/v1/models/iris:predict", "/v1/models/iris/metadata"),
        ("protocol = 'torchserve'", "/predictions/iris", "/ping"),
        ("path = '/own'\nhealth_path = '/healthz'", "/own", "/healthz"),
    ] {
        let replica = Replica::echo();
        let front = Environment::new().cname(CNAME).service("iris", &[&replica], keys).start();
        let mut caller = front.http1().await;
        caller.call(post(SCORE, "x")).await;
        caller.call(get("/api/v1/service/iris/")).await;
        caller.call(get("/api/v1/service/iris/swagger.json")).await;
        let asked: Vec<_> = replica.requests().iter().map(|request| request.line().to_owned()).collect();
        let expected = [
            format!("POST {score} HTTP/1.1"),
            format!("GET {health} HTTP/1.1"),
            "GET /swagger.json HTTP/1.1".to_owned(),
        ];
        assert_eq!(asked, expected, "{keys}");
    }
}

#[tokio::test]
async fn sub_paths_and_queries_are_passed_on_byte_for_byte() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).start();
    for mut caller in front.both().await {
        for (below, target) in [
            ("/score?verbose=1&x=%2F/../?", "/score?verbose=1&x=%2F/../?"),
            ("/score/", "/score/"),
            ("/score/a%20b//c;d=1", "/score/a%20b//c;d=1"),
            ("/score/...", "/score/..."),
            ("/swagger.json?version=3", "/swagger.json?version=3"),
            ("/?x", "/?x"),
        ] {
            let before = replica.requests().len();
            assert_eq!(caller.call(get(&format!("/api/v1/service/iris{below}"))).await.status, 200, "{below}");
            assert_eq!(replica.requests()[before].line(), format!("GET {target} HTTP/1.1"));
        }
    }
}

#[tokio::test]
async fn each_resource_takes_its_methods_and_names_them_otherwise() {
    let replica = Replica::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let front = Environment::iris(&[&replica]).start();
    for mut caller in front.both().await {
        for (path, allowed) in [
            (SCORE, "POST, GET, OPTIONS"),
            ("/api/v1/service/iris/", "GET, HEAD, OPTIONS"),
            ("/api/v1/service/iris/swagger.json", "GET, HEAD, OPTIONS"),
        ] {
            for method in ["GET", "HEAD", "POST", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "get"] {
                let method = Method::from_bytes(method.as_bytes()).expect("a method");
                let head = method == Method::HEAD;
                let reply = caller.call(request(method.clone(), path, empty())).await;
                if allowed.split(", ").any(|allowed| *allowed == method) {
                    assert_eq!(reply.status, 200, "{method} {path}");
                } else {
                    assert_eq!((reply.status, reply.field("allow")), (405, Some(allowed)), "{method} {path}");
                    if !head {
                        reply.assert_refusal(405, "MethodNotAllowed", &format!("This path takes {allowed}."));
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).start();
    for mut caller in front.both().await {
        for path in [
            "/",
            "/score",
            "/api/v1/service/",
            "/api/v1/service/iris",
            "/api/v1/service//score",
            "/api/v1/service/iris/scores",
            "/api/v1/service/iris/Score",
            "/api/v1/service/iris/score%2fx",
            "/api/v1/service/iris/../iris/score",
            "//api/v1/service/iris/score",
        ] {
            caller.call(get(path)).await.assert_refusal(404, "NotFound", "No such path.");
        }
        for name in ["rose", "Iris", "iri%73"] {
            let reply = caller.call(post(&format!("/api/v1/service/{name}/score"), "x")).await;
            reply.assert_refusal(404, "ServiceNotFound", &format!("No such service: {name}."));
        }
    }
    assert!(replica.requests().is_empty());
}

#[tokio::test]
async fn paths_that_replicas_read_differently_are_refused() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).start();
    for below in ["/..", "/./x", "/a/../b", "/%2e%2E/x", "/a%2f..%2fb", "/a%5cb", "/%00", "/a%0d%0ax"] {
        for mut caller in front.both().await {
            let reply = caller.call(get(&format!("{SCORE}{below}"))).await;
            assert_eq!(reply.refusal(), (400, "BadRequest".to_owned()), "{below}");
        }
    }
    assert!(replica.requests().is_empty());
}

#[tokio::test]
async fn an_asterisk_is_for_options_only_and_no_path_of_ours() {
    let front = Environment::new().cname(CNAME).start();
    for (method, refusal) in
        [("OPTIONS", (404, "NotFound")), ("GET", (400, "BadRequest")), ("POST", (400, "BadRequest"))]
    {
        let reply = front.wire().await.ask(format!("{method} * HTTP/1.1\r\nHost: {CNAME}\r\n\r\n")).await;
        assert_eq!(reply.refusal(), (refusal.0, refusal.1.to_owned()), "{method}");
    }
}

#[tokio::test]
async fn nobody_gets_a_tunnel() {
    let replica = Replica::echo();
    let front = Environment::iris(&[&replica]).start();
    let connect = format!("CONNECT {CNAME}:443 HTTP/1.1\r\nHost: {CNAME}:443\r\n\r\n");
    let reply = front.wire().await.ask(connect).await;
    reply.assert_refusal(405, "MethodNotAllowed", "This path takes POST, GET, OPTIONS.");
    assert_eq!(reply.field("allow"), Some("POST, GET, OPTIONS"));

    let connect = Request::connect(format!("{CNAME}:443")).body(empty()).expect("a request");
    let reply = front.http2().await.call(connect).await;
    reply.assert_refusal(405, "MethodNotAllowed", "This path takes POST, GET, OPTIONS.");
    assert!(replica.requests().is_empty());
}
