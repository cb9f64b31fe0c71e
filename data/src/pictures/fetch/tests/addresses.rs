use std::net::IpAddr;

use crate::Error;
use crate::pictures::fetch::address::refusal;
use crate::pictures::fetch::target::{AllowHosts, Target};

fn nobody() -> AllowHosts {
    AllowHosts::parse(&[]).unwrap()
}

fn reason(url: &str, allow: &AllowHosts) -> String {
    Target::parse(url, allow).map_or_else(|failure| failure.reason.as_str().into_owned(), |_| "fine".to_owned())
}

#[test]
fn only_public_addresses_are_asked() {
    let refused = [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "10.255.255.255",
        "100.64.0.1",
        "100.100.100.200",
        "100.127.255.255",
        "127.0.0.1",
        "127.255.0.9",
        "168.63.129.16",
        "169.254.169.254",
        "169.254.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.192",
        "192.0.2.7",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.1",
        "203.0.113.9",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::8.8.8.8",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::10.0.0.1",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::8.8.8.8",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::1",
        "2002:c0a8:101::1",
        "fc00::1",
        "fd00:ec2::254",
        "fdff::1",
        "fe80::1",
        "febf::1",
        "fec0::1",
        "ff02::1",
        "ff0e::1",
        "100::1",
        "2001::1",
        "2001:0:4136:e378::1",
        "2001:2::1",
        "2001:10::1",
        "2001:db8::1",
        "3fff::1",
        "3fff:fff::1",
        "4000::1",
        "5f00::1",
        "1fff::1",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    ];
    for text in refused {
        assert!(refusal(text.parse::<IpAddr>().unwrap()).is_some(), "{text} is asked");
    }
    let asked = [
        "1.1.1.1",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.1",
        "100.63.255.255",
        "100.128.0.1",
        "126.255.255.255",
        "128.0.0.1",
        "169.253.255.255",
        "169.255.0.1",
        "172.15.255.255",
        "172.32.0.1",
        "192.0.1.1",
        "192.167.1.1",
        "192.169.1.1",
        "198.17.0.1",
        "198.20.0.1",
        "223.255.255.255",
        "168.63.129.17",
        "::ffff:8.8.8.8",
        "64:ff9b::8.8.8.8",
        "2002:808:808::1",
        "2001:200::1",
        "2001:4860:4860::8888",
        "2600:9000::1",
        "2a00:1450::1",
        "3ffe::1",
    ];
    for text in asked {
        assert_eq!(refusal(text.parse::<IpAddr>().unwrap()), None, "{text}");
    }
}

#[test]
fn odd_spellings_are_the_same_addresses() {
    let loopback = [
        "http://127.0.0.1/",
        "http://127.1/",
        "http://127.0.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0x7f.1/",
        "http://0177.0.0.1/",
        "http://017700000001/",
        "http://0x7F.0x0.0x0.0x1/",
        "http://127.0.0.1./",
        "http://127%2e0%2e0%2e1/",
        "http://１２７.0.0.1/",
        "http://127。0。0。1/",
        "http:127.0.0.1/",
        "http:\\\\127.0.0.1/",
        "http:////127.0.0.1/x",
        " http://127.0.0.1/",
        "ht\ntp://127.0.0.1/",
        "HTTP://127.0.0.1:80/",
        "http://0/",
        "https://[::1]/",
        "http://[0:0:0:0:0:0:0:1]/",
        "http://[::ffff:7f00:1]/",
        "http://[::ffff:127.0.0.1]:8080/",
        "http://2852039166/latest/meta-data/",
        "http://0xa9fea9fe/",
        "http://0251.0376.0251.0376/",
        "http://[::ffff:a9fe:a9fe]/",
        "http://[64:ff9b::a9fe:a9fe]/",
        "http://[fd00:ec2::254]/",
    ];
    for url in loopback {
        assert_eq!(reason(url, &nobody()), "refused_address", "{url:?}");
    }
    for url in [
        "http://8.8.8.8/x.jpg",
        "https://[2001:4860:4860::8888]:444/",
        "http://shop.example/a b.jpg",
        "HTTP://0x08080808",
    ] {
        assert_eq!(reason(url, &nobody()), "fine", "{url}");
    }
}

#[test]
fn only_plain_web_urls_are_fetched() {
    let long = format!("http://shop.example/{}", "x".repeat(9000));
    let bad = [
        "",
        "a.jpg",
        "/a.jpg",
        "//shop.example/a.jpg",
        "file:///etc/passwd",
        "ftp://shop.example/a.jpg",
        "gopher://x/",
        "data:image/png;base64,AA",
        "javascript:1",
        "http://",
        "http://user@shop.example/",
        "http://user:secret@shop.example/",
        "http://:secret@shop.example/",
        "http://[::1",
        "http://1.2.3.4.5/",
        "http://256.1.1.1/",
        "http://shop.example:99999/",
        "http://sh op.example/",
        "http://[fe80::1%25eth0]/",
        "jar:http://shop.example/",
        &long,
    ];
    for url in bad {
        assert_eq!(reason(url, &nobody()), "bad_url", "{url:?}");
    }
    assert_eq!(reason("http://user@127.0.0.1/", &nobody()), "bad_url");
}

#[test]
fn an_allowed_host_is_allowed_on_its_port_only() {
    let allow = ["10.0.0.7:8080", "[::1]", "Images.local", "192.168.0.1:80", "192.168.0.2:443"].map(str::to_owned);
    let allow = AllowHosts::parse(&allow).unwrap();
    let allowed = |url: &str| Target::parse(url, &allow).is_ok_and(|target| target.allowed);
    for url in [
        "http://10.0.0.7:8080/",
        "https://10.0.0.7:8080/",
        "http://0xa000007:8080/",
        "http://[::1]:9/",
        "http://images.local./",
        "https://IMAGES.local:1/",
        "http://192.168.0.1/",
        "https://192.168.0.1:80/",
        "https://192.168.0.2/",
    ] {
        assert!(allowed(url), "{url}");
    }
    for url in [
        "http://10.0.0.7/",
        "http://10.0.0.7:8081/",
        "http://[::2]/",
        "http://images.local.example/",
        "http://my.images.local/",
        "https://192.168.0.1/",
        "http://192.168.0.2/",
    ] {
        assert!(!allowed(url), "{url}");
    }
    for entry in ["", "http://x", "x/y", "a b", "user@x", "x:port", "10.0.0.0/8", "x?y"] {
        let error = AllowHosts::parse(&[entry.to_owned()]).unwrap_err();
        assert!(matches!(&error, Error::AllowedHost { entry: named } if named == entry), "{error}");
    }
}
