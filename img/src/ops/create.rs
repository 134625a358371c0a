//! `create`: make a new image.

use std::sync::Arc;

use cairn_block::driver::{self, DriverInfo, DriverKind};
use cairn_block::graph::{Backend, Graph, References};
use cairn_block::options::{
    Dict, OptionDesc, OptionError, Value, filename, help, parse_list, validate,
};

use super::image::{Access, ImageSpec};
use super::staging::Staging;
use crate::error::{Error, Result};

/// Formats whose images consist of one file that does not contain its own name.
const SINGLE_FILE: [&str; 3] = ["luks", "qcow2", "raw"];

/// A new image.
#[derive(Clone, Debug, Default)]
pub struct CreateRequest {
    /// Its file name.
    pub filename: String,
    /// Its format.
    pub format: String,
    /// Options of the format, as one comma list.
    pub options: String,
    /// Size of the virtual disk in bytes; `None` for that in the options or of the backing file.
    pub size: Option<u64>,
    /// Backing file; relative to the directory of the new image.
    pub backing: Option<String>,
    /// Format of the backing file.
    pub backing_format: Option<String>,
    /// The backing file is not looked at.
    pub backing_unsafe: bool,
}

/// Creates an image. `announce` gets a line that says what is being created, as soon as that is clear
/// and before anything is written.
pub async fn create(
    graph: &Arc<Graph>,
    request: &CreateRequest,
    announce: impl FnOnce(&str) -> Result<()>,
) -> Result<()> {
    let plan = Plan::new(graph, request).await?;
    let line = help::creation_line(&plan.filename, plan.driver.name, &plan.table, &plan.options);
    announce(&line)?;
    let target = NewImage::create(graph, &plan).await?;
    target.commit()
}

/// What [`create`] would do, after a look at everything that it would look at.
pub async fn rehearse(graph: &Arc<Graph>, request: &CreateRequest) -> Result<String> {
    Plan::new(graph, request).await?.rehearse(graph).await
}

/// The driver called `format`, if it can create images.
pub fn creating_driver(format: &str) -> Result<&'static DriverInfo> {
    let driver = driver::find(format)
        .ok_or_else(|| Error::Usage(format!("there is no image format '{format}'")))?;
    if driver.create.is_none() {
        return Err(Error::Usage(format!("images of format '{format}' cannot be created")));
    }
    Ok(driver)
}

/// Creation options of the protocol that stores a file called `file`, in addition to those of
/// `format`.
pub fn protocol_options(format: &'static DriverInfo, file: &str) -> Result<&'static [OptionDesc]> {
    if format.kind == DriverKind::Protocol {
        return Ok(&[]);
    }
    Ok(filename::locate(file, None)?.driver.create_options)
}

/// A request with everything looked up that can be known beforehand.
pub(super) struct Plan {
    pub(super) driver: &'static DriverInfo,
    filename: String,
    table: Vec<&'static OptionDesc>,
    options: Dict,
}

impl Plan {
    pub(super) async fn new(graph: &Arc<Graph>, request: &CreateRequest) -> Result<Plan> {
        let driver = creating_driver(&request.format)?;
        let protocol = protocol_options(driver, &request.filename)?;
        let table = help::merge(&[driver.create_options, protocol]);
        let mut options = parse_list(&request.options, None);
        let known = |name: &str| table.iter().any(|desc| desc.name == name);
        if let Some((name, _)) = options.iter().find(|(name, _)| !known(name)) {
            let owner = format!("format '{}'", driver.name);
            let tables = [driver.create_options, protocol];
            return Err(OptionError::unknown(name, &owner, &tables).into());
        }
        if let Some(size) = request.size {
            if options.contains("size") {
                return Err(Error::Usage(
                    "the size was given twice: as an argument and as an option".to_owned(),
                ));
            }
            options.insert("size", size);
        }
        if request.backing.is_some() || request.backing_format.is_some() {
            if !known("backing_file") {
                return Err(Error::Usage(format!(
                    "images of format '{}' cannot have a backing file",
                    driver.name
                )));
            }
            if let Some(file) = &request.backing {
                options.insert("backing_file", file.as_str());
            }
            if let Some(format) = &request.backing_format {
                options.insert("backing_fmt", format.as_str());
            }
        }
        let mut plan = Plan { driver, filename: request.filename.clone(), table, options };
        plan.look_at_backing(graph, request.backing_unsafe).await?;
        if !plan.options.contains("size") {
            return Err(Error::Usage(format!(
                "give the size of the new image '{}'",
                plan.filename
            )));
        }
        Ok(plan)
    }

    /// The value of a text option; an empty one counts as absent.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.options.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    /// Stages the image under a name that a later run finds again, if that is possible.
    pub(super) fn stage_lasting(&self) -> Result<(Staging, bool)> {
        let staged = SINGLE_FILE
            .contains(&self.driver.name)
            .then(|| Staging::begin_lasting(&self.filename))
            .flatten();
        staged.ok_or_else(|| {
            Error::Usage(format!(
                "'{}' cannot be resumed: the target must be a plain file that can be replaced",
                self.filename
            ))
        })
    }

    /// What the image will be like, apart from its content.
    pub(super) fn describe(&self) -> String {
        help::creation_line(&self.filename, self.driver.name, &self.table, &self.options)
    }

    /// Options with which the new image is opened: the secrets that it is created with, and its backing
    /// file where images may not name one.
    pub(super) fn open_options(&self, graph: &Graph) -> Result<Dict> {
        let secret = |name: &str| name == "key-secret" || name.ends_with(".key-secret");
        let mut options = Dict::new();
        for (name, value) in self.options.iter().filter(|(name, _)| secret(name)) {
            options.insert(name.to_owned(), value.clone());
        }
        if graph.policy().references != References::Any
            && let Some(stored) = self.text("backing_file")
        {
            // The user has named it: it is not the image's own word.
            let mut backing = Dict::new();
            let name = filename::resolve_backing(stored, &self.filename)?;
            backing.insert("filename", name);
            if let Some(format) = self.text("backing_fmt") {
                backing.insert("driver", format);
            }
            options.insert("backing", backing);
        }
        Ok(options)
    }

    /// Says what creating the image would do, after checking its options and that its file can be
    /// made.
    pub(super) async fn rehearse(&self, graph: &Arc<Graph>) -> Result<String> {
        let described: Vec<OptionDesc> = self.table.iter().map(|desc| **desc).collect();
        validate(&self.options, &format!("format '{}'", self.driver.name), &[&described])?;
        let mut needs = String::new();
        if let Some(measure) = self.driver.measure {
            let own = |name: &str| self.driver.create_options.iter().any(|desc| desc.name == name);
            let mut options = Dict::new();
            for (name, value) in self.options.iter().filter(|(name, _)| own(name)) {
                options.insert(name.to_owned(), value.clone());
            }
            let measured = measure(options, None).await?;
            needs = format!("; it needs {} bytes at first", measured.required);
        }
        let replaces = match Staging::destination(&self.filename)? {
            Some(old) => {
                look(graph, &old).await?;
                " in place of the present file"
            }
            None => "",
        };
        let line =
            help::creation_line(&self.filename, self.driver.name, &self.table, &self.options);
        let what = line.strip_prefix("Formatting ").unwrap_or(&line);
        Ok(format!("Would create {what}{replaces}{needs}."))
    }

    /// Opens the backing file, to find mistakes now and to learn its size.
    async fn look_at_backing(&mut self, graph: &Arc<Graph>, trust: bool) -> Result<()> {
        let Some(stored) = self.text("backing_file") else {
            if self.text("backing_fmt").is_some() {
                return Err(Error::Usage(
                    "a backing format was given, but no backing file".to_owned(),
                ));
            }
            return Ok(());
        };
        if stored == self.filename {
            return Err(Error::Usage(format!("'{stored}' cannot be its own backing file")));
        }
        let format = self.text("backing_fmt").map(str::to_owned);
        if trust && self.options.contains("size") && format.is_some() {
            return Ok(());
        }
        let name = filename::resolve_backing(stored, &self.filename)?;
        let access = Access { metadata_only: true, force_share: true, ..Access::default() };
        if trust {
            return match format {
                Some(_) => Ok(()),
                None => Err(explicit_format(stored, None)),
            };
        }
        let spec = ImageSpec::File { name, format: format.clone() };
        let backing = spec.open(graph, &access).await.map_err(|error| match error {
            Error::Block(error) => Error::Block(error.context("cannot open the backing file")),
            other => other,
        })?;
        if format.is_none() {
            return Err(explicit_format(stored, Some(backing.node().format())));
        }
        if !self.options.contains("size") {
            self.options.insert("size", backing.size());
        }
        backing.close().await?;
        Ok(())
    }
}

fn explicit_format(backing: &str, detected: Option<&str>) -> Error {
    let hint = match detected {
        Some(format) => format!("it looks like '{format}': add -F {format} if that is right"),
        None => "add -F FORMAT".to_owned(),
    };
    Error::Usage(format!("the format of the backing file '{backing}' must be given; {hint}"))
}

/// An image that was created and may not have its name yet.
pub(super) struct NewImage {
    /// The name to open it under.
    pub(super) filename: String,
    /// The name that the user gave.
    named: String,
    staging: Option<Staging>,
    /// Keeps others from the file that is about to be replaced.
    _claim: Option<Backend>,
}

impl NewImage {
    pub(super) async fn create(graph: &Arc<Graph>, plan: &Plan) -> Result<NewImage> {
        let create = plan.driver.create.ok_or_else(|| {
            Error::Usage(format!("images of format '{}' cannot be created", plan.driver.name))
        })?;
        let mut staging = None;
        if SINGLE_FILE.contains(&plan.driver.name) {
            staging = Staging::begin(&plan.filename, plan.text("backing_file").is_some());
        }
        let claim = match staging.as_ref().and_then(Staging::replaced) {
            Some(old) => Some(claim(graph, old).await?),
            None => None,
        };
        let filename =
            staging.as_ref().and_then(Staging::temporary).unwrap_or(&plan.filename).to_owned();
        let image = NewImage { filename, named: plan.filename.clone(), staging, _claim: claim };
        let created = create(graph, &image.filename, plan.options.clone()).await;
        image.with_name(created.map_err(Error::from))?;
        Ok(image)
    }

    /// The image that `staging` holds, created by `plan` unless it `is_there`.
    pub(super) async fn create_lasting(
        graph: &Arc<Graph>,
        plan: &Plan,
        staging: Staging,
        is_there: bool,
    ) -> Result<NewImage> {
        let create = plan.driver.create.ok_or_else(|| {
            Error::Usage(format!("images of format '{}' cannot be created", plan.driver.name))
        })?;
        let claim = match staging.replaced() {
            Some(old) => Some(claim(graph, old).await?),
            None => None,
        };
        let filename = staging.temporary().unwrap_or(&plan.filename).to_owned();
        let named = plan.filename.clone();
        let mut image = NewImage { filename, named, staging: Some(staging), _claim: claim };
        if !is_there {
            let created = create(graph, &image.filename, plan.options.clone()).await;
            image.with_name(created.map_err(Error::from))?;
        }
        if let Some(staging) = &mut image.staging {
            staging.keep();
        }
        Ok(image)
    }

    /// Makes a failure speak of the name that the user knows.
    pub(super) fn with_name<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|source| Error::Unnamed {
            temporary: self.filename.clone(),
            filename: self.named.clone(),
            source: Box::new(source),
        })
    }

    /// Gives the finished image its name.
    pub(super) fn commit(self) -> Result<()> {
        self.staging.map_or(Ok(()), Staging::commit)
    }
}

/// Fails if a file that would be replaced is in use.
async fn look(graph: &Arc<Graph>, filename: &str) -> Result<()> {
    let spec = ImageSpec::File { name: filename.to_owned(), format: Some("file".to_owned()) };
    let access = Access { exclusive: true, ..Access::default() };
    Ok(spec.open(graph, &access).await?.close().await?)
}

/// Opens a file that is to be replaced as its writer would, which fails if somebody uses it.
async fn claim(graph: &Arc<Graph>, filename: &str) -> Result<Backend> {
    let spec = ImageSpec::File { name: filename.to_owned(), format: Some("file".to_owned()) };
    let access = Access { write: true, resize: true, ..Access::default() };
    spec.open(graph, &access).await
}
