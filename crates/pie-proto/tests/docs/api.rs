//! The reference of the public API, of the proto files' own comments.

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    ServiceDescriptorProto,
};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

const PACKAGE: &str = "pie.v1";

/// Comments by the path of what they stand before.
type Comments = BTreeMap<Vec<i32>, String>;

// Field numbers of descriptor.proto, of which paths are made.
const SYNTAX: i32 = 12;
const MESSAGES: i32 = 4;
const ENUMS: i32 = 5;
const SERVICES: i32 = 6;
/// Of messages their fields, of enumerations their values, of services their methods.
const PARTS: i32 = 2;
const ONEOFS: i32 = 8;

pub fn page() -> String {
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    let set = protox::compile(["pie/v1/pie.proto", "pie/v1/admin.proto"], [proto]);
    let set: FileDescriptorSet = set.expect("the proto files compile");
    let mut page = format!(
        "# API reference: {PACKAGE}\n\n\
        <!-- Made of proto/pie/v1 by `PIE_WRITE_DOCS=1 cargo test -p pie-proto --test docs`. -->\n"
    );
    let files: Vec<(&FileDescriptorProto, Comments)> =
        set.file.iter().filter(|file| file.package() == PACKAGE).map(|file| (file, comments(file))).collect();
    for (_, comments) in &files {
        if let Some(about) = comments.get(&vec![SYNTAX]) {
            add(&mut page, format_args!("\n{about}\n"));
        }
    }
    add(
        &mut page,
        format_args!(
            "\nFields that are not set are 0, empty or false, as in every proto3 API. Reasons of errors: [errors.md](errors.md).\n"
        ),
    );
    for (file, comments) in &files {
        for (index, each) in (0..).zip(&file.service) {
            service(&mut page, each, &[SERVICES, index], comments);
        }
    }
    add(&mut page, format_args!("\n## Messages\n"));
    for (file, comments) in &files {
        for (index, each) in (0..).zip(&file.message_type) {
            message(&mut page, each, &[MESSAGES, index], comments);
        }
    }
    add(&mut page, format_args!("\n## Enumerations\n"));
    for (file, comments) in &files {
        for (index, each) in (0..).zip(&file.enum_type) {
            enumeration(&mut page, each, &[ENUMS, index], comments);
        }
    }
    page
}

fn add(page: &mut String, text: std::fmt::Arguments) {
    page.write_fmt(text).expect("a text takes everything");
}

fn comments(file: &FileDescriptorProto) -> Comments {
    let info = file.source_code_info.as_ref().expect("the descriptors have comments");
    let comment = |location: &prost_types::source_code_info::Location| {
        let lines: Vec<&str> = location.leading_comments().trim().lines().map(str::trim).collect();
        let paragraphs = lines.split(|line| line.is_empty()).map(|lines| lines.join(" "));
        (location.path.clone(), paragraphs.collect::<Vec<_>>().join("\n\n"))
    };
    info.location.iter().map(comment).filter(|(_, text)| !text.is_empty()).collect()
}

fn of(comments: &Comments, path: &[i32], parts: i32, index: i32) -> String {
    let path = [path, &[parts, index]].concat();
    comments.get(&path).map(|text| text.replace("\n\n", " ").replace('|', "\\|")).unwrap_or_default()
}

fn heading(page: &mut String, level: &str, name: &str, path: &[i32], comments: &Comments) {
    add(page, format_args!("\n{level} {name}\n"));
    if let Some(about) = comments.get(path) {
        add(page, format_args!("\n{about}\n"));
    }
}

/// The name of a type behind its package, linked to its section.
fn link(full: &str) -> String {
    let name = full.trim_start_matches('.').trim_start_matches(PACKAGE).trim_start_matches('.');
    if full.starts_with(&format!(".{PACKAGE}.")) {
        format!("[{name}](#{})", name.to_lowercase())
    } else {
        full.trim_start_matches('.').to_owned()
    }
}

fn service(page: &mut String, service: &ServiceDescriptorProto, path: &[i32], comments: &Comments) {
    heading(page, "##", &format!("Service {PACKAGE}.{}", service.name()), path, comments);
    add(page, format_args!("\n| call | takes | answers |\n| --- | --- | --- |\n"));
    let stream = |streams: bool| if streams { "stream of " } else { "" };
    for method in &service.method {
        let name = method.name();
        add(
            page,
            format_args!(
                "| [{name}](#{}) | {}{} | {}{} |\n",
                name.to_lowercase(),
                stream(method.client_streaming()),
                link(method.input_type()),
                stream(method.server_streaming()),
                link(method.output_type()),
            ),
        );
    }
    for (index, method) in (0..).zip(&service.method) {
        add(page, format_args!("\n### {}\n\n{}\n", method.name(), of(comments, path, PARTS, index)));
    }
}

fn message(page: &mut String, message: &DescriptorProto, path: &[i32], comments: &Comments) {
    heading(page, "###", message.name(), path, comments);
    if message.field.is_empty() {
        add(page, format_args!("\nIt has no fields.\n"));
        return;
    }
    add(page, format_args!("\n| field | type | meaning |\n| --- | --- | --- |\n"));
    for (index, field) in (0..).zip(&message.field) {
        let mut meaning = of(comments, path, PARTS, index);
        // An `optional` field is a oneof of its own to the compiler.
        if let (Some(oneof), false) = (field.oneof_index, field.proto3_optional()) {
            let name = message.oneof_decl[oneof as usize].name();
            let about = of(comments, path, ONEOFS, oneof);
            meaning = format!("One of `{name}`. {about} {meaning}")
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ");
        }
        add(page, format_args!("| `{}` | {} | {meaning} |\n", field.name(), kind(field)));
    }
}

fn kind(field: &FieldDescriptorProto) -> String {
    let name = match field.r#type() {
        Type::Message | Type::Enum => link(field.type_name()),
        other => format!("{other:?}").to_lowercase(),
    };
    match (field.label(), field.proto3_optional()) {
        (Label::Repeated, _) => format!("list of {name}"),
        (_, true) => format!("optional {name}"),
        _ => name,
    }
}

fn enumeration(page: &mut String, each: &EnumDescriptorProto, path: &[i32], comments: &Comments) {
    heading(page, "###", each.name(), path, comments);
    add(page, format_args!("\n| value | number | meaning |\n| --- | --- | --- |\n"));
    for (index, value) in (0..).zip(&each.value) {
        let meaning = of(comments, path, PARTS, index);
        add(page, format_args!("| `{}` | {} | {meaning} |\n", value.name(), value.number()));
    }
}
