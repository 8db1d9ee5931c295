//! What the demo's replica says of itself: its API as Swagger 2 and as `OpenAPI` 3. Documents only; who asks, and how they
//! are sent, is [`super::replica`]'s business.

use serde_json::{Value, json};

/// The document in a version's form; `None` for versions there is no form of.
pub fn document(version: &str) -> Option<Value> {
    match version {
        "2" | "2.0" => Some(swagger_2()),
        "3" | "3.0" => Some(openapi("3.0.3")),
        "3.1" => Some(openapi("3.1.0")),
        _ => None,
    }
}

fn swagger_2() -> Value {
    let answer = |description, schema| {
        json!({
            "200": { "description": description, "schema": schema },
            "default": { "description": FAILED, "schema": { "$ref": "#/definitions/ErrorResponse" } },
        })
    };
    let input = json!({ "$ref": "#/definitions/ServiceInput" });
    json!({
        "swagger": "2.0",
        "info": info(),
        "consumes": ["application/json"],
        "produces": ["application/json"],
        "paths": {
            "/": { "get": {
                "operationId": "ServiceHealthCheck",
                "produces": ["text/html"],
                "responses": answer(HEALTHY, json!({ "type": "string" })),
            } },
            "/score": { "post": {
                "operationId": "RunMLService",
                "parameters": [{ "name": "serviceInputPayload", "in": "body", "required": true, "schema": input }],
                "responses": answer(PREDICTED, json!({ "$ref": "#/definitions/ServiceOutput" })),
            } },
            "/swagger.json": { "get": {
                "operationId": "GetSwaggerSpec",
                "parameters": [{ "name": "version", "in": "query", "type": "string", "enum": ["2", "3", "3.1"] }],
                "responses": answer(DESCRIBED, json!({ "type": "object" })),
            } },
        },
        "definitions": schemas(),
    })
}

fn openapi(version: &str) -> Value {
    let answer = |description, media: &str, schema| {
        let error = json!({ "$ref": "#/components/schemas/ErrorResponse" });
        json!({
            "200": { "description": description, "content": { media: { "schema": schema } } },
            "default": { "description": FAILED, "content": { JSON: { "schema": error } } },
        })
    };
    let input = json!({ "$ref": "#/components/schemas/ServiceInput" });
    let versions = json!({ "type": "string", "enum": ["2", "3", "3.1"] });
    json!({
        "openapi": version,
        "info": info(),
        // Beside this document, wherever a front end shows it.
        "servers": [{ "url": "." }],
        "paths": {
            "/": { "get": {
                "operationId": "ServiceHealthCheck",
                "responses": answer(HEALTHY, "text/html", json!({ "type": "string" })),
            } },
            "/score": { "post": {
                "operationId": "RunMLService",
                "requestBody": { "required": true, "content": { JSON: { "schema": input } } },
                "responses": answer(PREDICTED, JSON, json!({ "$ref": "#/components/schemas/ServiceOutput" })),
            } },
            "/swagger.json": { "get": {
                "operationId": "GetSwaggerSpec",
                "parameters": [{ "name": "version", "in": "query", "schema": versions }],
                "responses": answer(DESCRIBED, JSON, json!({ "type": "object" })),
            } },
        },
        "components": { "schemas": schemas() },
    })
}

const JSON: &str = "application/json";
const HEALTHY: &str = "The service is up, and says 'Healthy'.";
const PREDICTED: &str = "One prediction for each flower, in the order of the flowers.";
const DESCRIBED: &str = "This document.";
const FAILED: &str = "The request was refused; the message says why.";

fn info() -> Value {
    let description = "Which of three irises is it? Multinomial logistic regression on Fisher's data of 1936.";
    json!({ "title": "iris", "description": description, "version": env!("CARGO_PKG_VERSION") })
}

/// The same in every version of the description.
fn schemas() -> Value {
    let flower = json!({ "type": "array", "items": { "type": "number" }, "minItems": 4, "maxItems": 4 });
    json!({
        "ServiceInput": {
            "type": "object",
            "description": "For each flower: sepal length, sepal width, petal length and petal width, in cm.",
            "required": ["data"],
            "properties": { "data": { "type": "array", "items": flower } },
            "example": { "data": [[5.1, 3.5, 1.4, 0.2]] },
        },
        "ServiceOutput": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["class", "probability"],
                "properties": {
                    "class": { "type": "string", "enum": ["setosa", "versicolor", "virginica"] },
                    "probability": { "type": "number", "minimum": 0, "maximum": 1 },
                },
            },
            "example": [{ "class": "setosa", "probability": 0.9816 }],
        },
        "ErrorResponse": {
            "type": "object",
            "required": ["message"],
            "properties": { "message": { "type": "string" } },
        },
    })
}
